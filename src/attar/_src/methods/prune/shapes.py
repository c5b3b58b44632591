"""Shapes of a pruning schedule: how much of the way to the final sparsity is done when."""

from __future__ import annotations

import math
from typing import ClassVar

from attar._src.core.registry import Registry


class PruningShape:
    """How sparsity grows from ``begin`` to ``end`` of a schedule.

    Attributes:
        name: in recipes.
        gradual: whether it grows in every update of the masks, not only at some.
        releases: whether masks end at ``end``.
    """

    name: ClassVar[str]
    gradual: ClassVar[bool] = True
    releases: ClassVar[bool] = False

    def share(self, u: float, left: float, steps: int) -> float:
        """Return f(u), the share of the way that is done, with ``f(1) = 1``.

        Args:
            u: completed share of the time, 0 to 1.
            left: of the elements that there are at first, the share that is left in the end.
            steps: number of steps.
        """
        raise NotImplementedError


class OnceShape(PruningShape):
    """``f = 1``: one-shot, and the rest of the stage trains what is left."""

    name: ClassVar[str] = "once"
    gradual: ClassVar[bool] = False

    def share(self, u: float, left: float, steps: int) -> float:
        return 1.0


class StepsShape(PruningShape):
    """``f = (floor(n u) + 1) / n``: prune, train, prune again (Han, Pool, Tran, Dally 2015, "Learning both weights and
    connections for efficient neural networks", section 3)."""

    name: ClassVar[str] = "steps"
    gradual: ClassVar[bool] = False

    def share(self, u: float, left: float, steps: int) -> float:
        return min(1.0, (math.floor(u * steps) + 1) / steps)


class LinearShape(PruningShape):
    """``f = u``: the same number of units in each update."""

    name: ClassVar[str] = "linear"

    def share(self, u: float, left: float, steps: int) -> float:
        return u


class CubicShape(PruningShape):
    """``f = 1 - (1 - u)^3``: fast at first (Zhu and Gupta 2017, "To prune, or not to prune", section 3)."""

    name: ClassVar[str] = "cubic"

    def share(self, u: float, left: float, steps: int) -> float:
        return 1 - (1 - u) ** 3


class ExponentialShape(PruningShape):
    """``f = (1 - r^u) / (1 - r)`` with r the share that is left in the end: each update removes the same share of what
    is left."""

    name: ClassVar[str] = "exponential"

    def share(self, u: float, left: float, steps: int) -> float:
        return u if left >= 1 else (1 - left**u) / (1 - left)


class DenseSparseDenseShape(PruningShape):
    """One-shot at ``begin``; at ``end`` the masks go, and what was pruned is trained again from zero (Han et al. 2017,
    "DSD: dense-sparse-dense training for deep neural networks", section 3). The stage ends without zeros."""

    name: ClassVar[str] = "dense_sparse_dense"
    gradual: ClassVar[bool] = False
    releases: ClassVar[bool] = True

    def share(self, u: float, left: float, steps: int) -> float:
        return 1.0


SHAPES: Registry[PruningShape] = Registry(
    "pruning shape",
    OnceShape(),
    StepsShape(),
    LinearShape(),
    CubicShape(),
    ExponentialShape(),
    DenseSparseDenseShape(),
    base=PruningShape,
)
