"""Scores of units by what their removal costs where the other weights make up for it.

Removing the columns J of a unit from the rows W of a layer that reads it, with all other columns solved anew, changes
the mean square of the layer's output by

    tr(W_J [(H^-1)_JJ]^-1 W_J^T) / 2,

H the Hessian of what it reads (Kurtic, Frantar and Alistarh 2023, "ZipLM: inference-aware structured pruning of
language models" (arXiv 2302.04089), section 3.1). What the next costs depends on what is gone: of two channels that
tell the same one is free, both are not. So units are eliminated step by step from each weight, the cheapest first, with
W and H^-1 of what is left; a unit's cost is that at its step, and no less than those before it.

A unit's score is the sum of its costs and of those of all cheaper units of its group: what is lost once it is gone.
Equal scores of two groups then mean that their readers lost equally much. (Costs alone take whole layers where each
unit costs little: ResNet-20 without half its multiplications, nothing trained, has 80.4 % of training images by costs,
and 88.3 % by sums.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import torch
from torch import nn

from attar._src.core.errors import prefixed_errors
from attar._src.methods.prune.weights.own_values import OwnValues
from attar._src.methods.prune.weights.walk import WeightWalk
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.find import Dependencies
from attar._src.model.trace import deploy_graph
from attar._src.model.weights import find_weights
from attar._src.work.calibration_inputs import CalibrationInputs

#: Steps in which the units of one weight are eliminated at most.
_STEPS = 128


def elimination_scores(
    module: nn.Module, captured: CapturedModel, found: Dependencies, inputs: CalibrationInputs
) -> dict[int, float]:
    """Return unit -> its score: costs are summed over the weights that read it, each relative to their outputs' square.

    Units that no weight reads whose inputs can be seen have none.
    """
    traced = deploy_graph(module, captured)
    own, state = OwnValues(module, captured, traced), traced.state()
    removable = torch.tensor([unit for group in found.groups for unit in group.units], dtype=torch.int64)
    walk = WeightWalk(traced, inputs, [name for name in find_weights(traced.graph) if name in found.state])
    columns = {
        name: labels
        for name in walk.reads
        if name not in own.fixed and (labels := _columns(walk, found, name, removable)) is not None
    }
    costs: dict[int, float] = {}
    for name, seen in walk.seen([*columns]):
        assert seen is not None
        rows = walk.rows[name].rows(state[name]).double()
        energy = float((rows @ seen.hessian * rows).sum())
        for group, hessian in enumerate(seen.hessian):
            with prefixed_errors(f"prune at {name!r}"):
                for unit, cost in eliminate(rows[group], hessian, columns[name][group]):
                    costs[unit] = costs.get(unit, 0.0) + (cost / energy if energy else 0.0)
    return {unit: score for group in found.groups for unit, score in _summed(costs, group.units)}


def _summed(costs: Mapping[int, float], units: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Yield those of these units that have a cost, cheapest first, with the sum of all so far."""
    known = sorted((unit for unit in units if unit in costs), key=lambda unit: costs[unit])
    yield from zip(known, accumulate(costs[unit] for unit in known), strict=True)


def _columns(walk: WeightWalk, found: Dependencies, name: str, removable: torch.Tensor) -> torch.Tensor | None:
    """Return the unit of each column of a weight, ``(groups, columns)``, -1 of those that stay; None if all do."""
    shape = walk.state[name].shape
    for axis, vector in enumerate(found.state[name]):
        made = any(name == each and torch.equal(vector, units) for each, units in found.outputs)
        if made or axis == walk.rows[name].axis:
            continue
        along = vector.reshape([-1 if each == axis else 1 for each in range(len(shape))]).expand(shape)
        labels = walk.rows[name].rows(along)
        counted = torch.isin(labels[:, 0], removable)
        if counted.any() and (labels == labels[:, :1]).all():
            return labels[:, 0].masked_fill(~counted, -1)
    return None


def eliminate(rows: torch.Tensor, hessian: torch.Tensor, units: torch.Tensor) -> Iterator[tuple[int, float]]:
    """Yield units in the order of their elimination with their costs, which never fall.

    Args:
        rows: float64 ``(rows, columns)``.
        hessian: positive definite, float64 ``(columns, columns)``.
        units: the unit of each column, -1 of those that stay.

    Example:
        H = [[2, 2], [2, 2]] + 1e-6, w = (1, 1): the first costs about nothing, the second then 2 * 2^2.
    """
    inverse, rows = torch.cholesky_inverse(torch.linalg.cholesky(hessian)), rows.clone()
    left = {unit: (units == unit).nonzero()[:, 0] for unit in units.unique().tolist() if unit >= 0}
    at_once, least = -(-len(left) // _STEPS), 0.0
    while left:
        known = _costs(rows, inverse, left)
        for unit, cost in sorted(known.items(), key=lambda each: each[1])[:at_once]:
            least = max(least, cost)
            yield unit, least
            gone = left.pop(unit)
            made = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])
            rows = rows - rows[:, gone] @ made
            inverse = inverse - inverse[:, gone] @ made


def _costs(rows: torch.Tensor, inverse: torch.Tensor, units: dict[int, torch.Tensor]) -> dict[int, float]:
    """Return unit -> what its removal costs, of units with equally many columns at a time."""
    sizes: dict[int, list[int]] = {}
    for unit, own in units.items():
        sizes.setdefault(len(own), []).append(unit)
    found: dict[int, float] = {}
    for same in sizes.values():
        places = torch.stack([units[unit] for unit in same])
        blocks = inverse[places[:, :, None], places[:, None, :]]
        own = rows[:, places].movedim(0, 1)
        costs = (torch.linalg.solve(blocks, own.mT) * own.mT).sum((1, 2))
        found |= dict(zip(same, costs.tolist(), strict=True))
    return found
