"""Pruning scores: the importance of each element of a weight; the lowest are pruned."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch

from attar._src.core.registry import Registry


class Score(Protocol):
    """The importance of each element of a weight."""

    name: ClassVar[str]

    def score(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a score >= 0 per element, the weight's shape, comparable between weights; 0 for a zero element."""
        ...


class Magnitude(Score):
    """``|w|``: small weights change the output least (Han et al. 2015, "Learning both weights and connections")."""

    name: ClassVar[str] = "magnitude"

    def score(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.abs()


SCORES: Registry[Score] = Registry("pruning score", Magnitude())
