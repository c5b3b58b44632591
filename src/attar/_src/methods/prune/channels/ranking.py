"""Ranking: one score for each unit, of the scores of all parameters that are removed with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.methods.prune.channels.scores import ChannelScore, ScoredAxis
from attar._src.model.dependencies.find import Dependencies
from attar._src.model.programs import state_of


def score_units(
    module: nn.Module,
    found: Dependencies,
    score: ChannelScore,
    gradients: Mapping[str, torch.Tensor],
    seed: int,
) -> dict[int, float]:
    """Return the score of every unit that can be removed and that the score can judge.

    Along each axis of each parameter, the scores of a unit's elements are summed and divided by the mean of these sums,
    so that layers of any size can be compared. A unit's score is the mean over all these axes.

    Raises:
        ModelError: a score is not finite.
    """
    random = torch.Generator().manual_seed(seed)
    removable = {unit for group in found.groups for unit in group.units}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    sums: dict[int, list[float]] = {}
    seen: set[int] = set()
    for name, vectors in found.state.items():
        value = state_of(module)[name]
        judged = name in found.norms if score.reads == "norms" else value.dim() > 1
        if name not in parameters or not judged or id(value) in seen:
            continue
        seen.add(id(value))
        gradient = gradients.get(name, torch.zeros_like(value))
        for axis, vector in enumerate(vectors):
            units = [unit for unit in dict.fromkeys(vector.tolist()) if unit in removable]
            if not units:
                continue
            scores = score.score(ScoredAxis(value.detach(), gradient, axis, random)).double()
            if not torch.isfinite(scores).all():
                raise ModelError(f"the score {score.name} of {name} is not finite; check the weights and the inputs")
            numbers, places = vector.unique(return_inverse=True)
            total = torch.zeros(len(numbers), dtype=torch.float64).index_add_(0, places, scores)
            by_unit = dict(zip(numbers.tolist(), total.tolist(), strict=True))
            mean = sum(by_unit[unit] for unit in units) / len(units)
            for unit in units:
                sums.setdefault(unit, []).append(by_unit[unit] / mean if mean else 0.0)
    return {unit: sum(each) / len(each) for unit, each in sums.items()}
