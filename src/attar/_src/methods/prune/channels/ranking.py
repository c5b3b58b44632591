"""Ranking: one score for each unit, of the scores of all parameters that are removed with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.methods.prune.channels.scores import ChannelScore, ScoredAxis
from attar._src.model.dependencies.find import Dependencies
from attar._src.model.programs import state_of

#: Name of a parameter -> the gradient of a loss.
Gradients = Mapping[str, torch.Tensor]
#: Of a loss, for each part of the examples.
PartGradients = Iterable[Gradients]


@dataclass(frozen=True)
class _Axis:
    """An axis of a parameter that units lie along.

    Attributes:
        name, value, axis: the parameter and its axis.
        units: that lie along it, each once.
        places: of each index of the axis, the place of its unit in ``units``.
        counted: of each of ``units``, whether it can be removed.
        reads: whether the parameter multiplies the units by its elements; otherwise it makes them.
    """

    name: str
    value: torch.Tensor
    axis: int
    units: torch.Tensor
    places: torch.Tensor
    counted: torch.Tensor
    reads: bool


def score_units(
    module: nn.Module,
    found: Dependencies,
    score: ChannelScore,
    gradients: PartGradients,
    squares: Mapping[str, torch.Tensor],
    seed: int,
) -> dict[int, float]:
    """Return the score of every unit that can be removed and that the score can judge.

    Along each axis of each parameter, the scores of a unit's elements are summed and divided by the mean of these sums,
    so that layers of any size can be compared. A unit's score is the mean over all these axes. A *joint* score is a
    change of the loss: it is summed over the weights that read a unit, for each part of the examples; the root of the
    mean square over these, divided by its mean over the group, is the unit's.

    Args:
        module: whose units they are.
        found: its dependencies.
        score: of channels.
        gradients: for scores that need them.
        squares: name of a weight -> mean squares of what its elements multiply, for scores that need them.
        seed: of scores that draw.

    Raises:
        ModelError: a score is not finite.
    """
    axes = [each for each in _axes(module, found, score) if not score.inputs or each.name in squares]
    random = torch.Generator().manual_seed(seed)
    if score.joint:
        joint = _joint_scores(score, axes, gradients, squares, random)
        return {unit: each for group in found.groups for unit, each in _ratios(joint, group.units)}
    mean = gradient_moments(gradients)[0] if score.gradients else {}
    ratios: dict[int, list[float]] = {}
    for each in axes:
        scores = score.of_units(_unit_sums(score, each, mean, squares, random))[each.counted]
        average = float(scores.mean())
        for unit, value in zip(each.units[each.counted].tolist(), scores.tolist(), strict=True):
            ratios.setdefault(unit, []).append(value / average if average else 0.0)
    return {unit: sum(each) / len(each) for unit, each in ratios.items()}


def _joint_scores(
    score: ChannelScore,
    axes: Sequence[_Axis],
    gradients: PartGradients,
    squares: Mapping[str, torch.Tensor],
    random: torch.Generator,
) -> dict[int, float]:
    """Return the root mean square over parts of what all weights that read a unit sum up to.

    Of a unit that none reads, those that make it count.
    """
    units = sorted({unit for each in axes for unit in each.units[each.counted].tolist()})
    place = {unit: at for at, unit in enumerate(units)}
    read = {unit for each in axes if each.reads for unit in each.units[each.counted].tolist()}
    chosen = []
    for each in axes:
        own = [unit in place and (each.reads or unit not in read) for unit in each.units.tolist()]
        mask = each.counted & torch.tensor(own)
        chosen.append((each, mask, torch.tensor([place[unit] for unit in each.units[mask].tolist()])))
    total, count = torch.zeros(len(units), dtype=torch.float64), 0
    for part in gradients:
        count += 1
        sums = torch.zeros(len(units), dtype=torch.float64)
        for each, mask, places in chosen:
            if len(places):
                sums.index_add_(0, places, _unit_sums(score, each, part, squares, random)[mask])
        total += score.of_units(sums).square()
    return dict(zip(units, (total / max(count, 1)).sqrt().tolist(), strict=True))


def _ratios(scores: Mapping[int, float], units: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Yield those of these units that have a score, with its ratio to their mean."""
    known = [unit for unit in units if unit in scores]
    mean = sum(scores[unit] for unit in known) / max(len(known), 1)
    for unit in known:
        yield unit, scores[unit] / mean if mean else 0.0


def gradient_moments(parts: PartGradients) -> tuple[Gradients, Gradients]:
    """Return the mean of the gradients of parts, and the mean of their squares."""
    sums, squares = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    count = 0
    for part in parts:
        count += 1
        for name, each in part.items():
            sums[name] = sums[name] + each if name in sums else each.clone()
            squares[name] = squares[name] + each.square() if name in squares else each.square()
    means = tuple({name: each / max(count, 1) for name, each in total.items()} for total in (sums, squares))
    return means[0], means[1]


def _axes(module: nn.Module, found: Dependencies, score: ChannelScore) -> Iterator[_Axis]:
    """Yield the axes that a score looks at, of tied parameters once."""
    removable = torch.tensor([unit for group in found.groups for unit in group.units], dtype=torch.int64)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    state, seen = state_of(module), set[int]()
    for name, vectors in found.state.items():
        value = state[name]
        judged = name in found.norms if score.reads == "norms" else value.dim() > 1
        if name not in parameters or not judged or id(value) in seen:
            continue
        seen.add(id(value))
        for axis, vector in enumerate(vectors):
            units, places = vector.unique(return_inverse=True)
            counted = torch.isin(units, removable)
            if counted.any():
                reads = not any(name == own and torch.equal(vector, each) for own, each in found.outputs)
                yield _Axis(name, value.detach(), axis, units, places, counted, reads)


def _unit_sums(
    score: ChannelScore,
    at: _Axis,
    gradients: Gradients,
    squares: Mapping[str, torch.Tensor],
    random: torch.Generator,
) -> torch.Tensor:
    gradient = gradients.get(at.name, torch.zeros_like(at.value)) if score.gradients else torch.zeros_like(at.value)
    scores = score.score(ScoredAxis(at.value, gradient, at.axis, random, squares.get(at.name))).double()
    if not torch.isfinite(scores).all():
        raise ModelError(f"the score {score.name} of {at.name} is not finite; check the weights and the inputs")
    return torch.zeros(len(at.units), dtype=torch.float64).index_add_(0, at.places, scores)
