"""Scopes: how many units of each weight are pruned, so that a share of all is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import ClassVar

import torch

from attar._src.core.registry import Registry
from attar._src.core.scheme import Shape
from attar._src.methods.prune.units import lowest


@dataclass(frozen=True)
class WeightUnits:
    """The units of one weight.

    Attributes:
        scores: of the units, any shape, the lowest to be pruned first; minus infinity of those that are zero already.
        squares: mean square of the elements of each unit, the same shape.
        shape: of the weight.
    """

    scores: torch.Tensor
    squares: torch.Tensor
    shape: Shape


class PruningScope:
    """Divides the units to prune among weights.

    Attributes:
        name: in recipes.
        each_row: whether the rows of a weight (its output channels) lose the same number each.
        ranks: whether scores, or sizes, of different weights are compared, so that a weight may lose all.
    """

    name: ClassVar[str]
    each_row: ClassVar[bool] = False
    ranks: ClassVar[bool] = False

    def counts(self, weights: Mapping[str, WeightUnits], share: float) -> dict[str, int]:
        """Return how many units of each weight are pruned; of all together ``round(share n)``, but for rounding."""
        return {name: round(share * each.scores.numel()) for name, each in weights.items()}


class LayerScope(PruningScope):
    """The same share of every weight."""

    name: ClassVar[str] = "layer"


class RowScope(PruningScope):
    """The same share of every output channel (Sun et al. 2024, "A simple and effective pruning approach for large
    language models", section 3: comparison groups)."""

    name: ClassVar[str] = "row"
    each_row: ClassVar[bool] = True


class GlobalScope(PruningScope):
    """The lowest scores of all weights together."""

    name: ClassVar[str] = "global"
    ranks: ClassVar[bool] = True

    def counts(self, weights: Mapping[str, WeightUnits], share: float) -> dict[str, int]:
        return _lowest_of_all({name: each.scores for name, each in weights.items()}, share)


class Lamp(PruningScope):
    """The lowest LAMP scores of all weights, ``w_u^2 / sum_{v: w_v^2 >= w_u^2} w_v^2`` in its weight (Lee, Park, Mo,
    Ahn, Shin 2021, "Layer-adaptive sparsity for the magnitude-based pruning", section 3). The score chooses which."""

    name: ClassVar[str] = "lamp"
    ranks: ClassVar[bool] = True

    def counts(self, weights: Mapping[str, WeightUnits], share: float) -> dict[str, int]:
        return _lowest_of_all({name: _lamp_scores(each.squares) for name, each in weights.items()}, share)


class ErdosRenyi(PruningScope):
    """Densities in proportion to ``sum(shape) / prod(shape)``, kernels included, at most 1: small layers keep more
    (Evci, Gale, Menick, Castro, Elsen 2020, "Rigging the lottery: making all tickets winners", section 3: ERK)."""

    name: ClassVar[str] = "erdos_renyi"

    def counts(self, weights: Mapping[str, WeightUnits], share: float) -> dict[str, int]:
        sizes = {name: each.scores.numel() for name, each in weights.items()}
        raw = {name: sum(each.shape) / max(sizes[name], 1) for name, each in weights.items()}
        left, dense = (1 - share) * sum(sizes.values()), set[str]()
        factor = 0.0
        while len(dense) < len(sizes):
            wanted = left - sum(sizes[name] for name in dense)
            factor = wanted / max(sum(raw[name] * sizes[name] for name in sizes if name not in dense), 1e-30)
            full = {name for name in sizes if name not in dense and factor * raw[name] > 1}
            if not full:
                break
            dense |= full
        pruned = {name: 0.0 if name in dense else (1 - factor * raw[name]) * size for name, size in sizes.items()}
        return _whole_numbers(pruned, round(share * sum(sizes.values())))


SCOPES: Registry[PruningScope] = Registry(
    "pruning scope", LayerScope(), RowScope(), GlobalScope(), Lamp(), ErdosRenyi(), base=PruningScope
)


def _lowest_of_all(scores: Mapping[str, torch.Tensor], share: float) -> dict[str, int]:
    flat = [each.reshape(-1).double() for each in scores.values()]
    if not flat:
        return {}
    every = torch.cat(flat)
    chosen = lowest(every, round(share * len(every)))
    parts = chosen.split([len(each) for each in flat])
    return {name: int(part.sum()) for name, part in zip(scores, parts, strict=True)}


def _lamp_scores(squares: torch.Tensor) -> torch.Tensor:
    flat = squares.reshape(-1).double()
    order = flat.argsort(stable=True)
    ordered = flat[order]
    tails = ordered.flip(0).cumsum(0).flip(0)
    found = torch.empty_like(flat)
    found[order] = torch.where(tails > 0, ordered / tails.clamp(min=1e-300), 0.0)
    return found


def _whole_numbers(values: Mapping[str, float], total: int) -> dict[str, int]:
    """Return whole numbers of this sum, those with the largest fractions rounded up."""
    found = {name: floor(value) for name, value in values.items()}
    by_fraction = sorted(values, key=lambda name: found[name] - values[name])
    for name in by_fraction[: total - sum(found.values())]:
        found[name] += 1
    return found
