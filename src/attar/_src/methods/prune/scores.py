"""Scores: how much each element of a weight matters; the lowest are pruned."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch

from attar._src.core.registry import Registry


class Score(Protocol):
    """Says how much each element of a weight matters."""

    name: ClassVar[str]

    def score(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a figure for each element, of the weight's shape, comparable between weights; 0 for a zero."""
        ...


class Magnitude:
    """``|w|``: small weights change the output least (Han et al. 2015, "Learning both weights and connections")."""

    name: ClassVar[str] = "magnitude"

    def score(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the absolute values."""
        return weight.abs()


SCORES: Registry[Score] = Registry("pruning score", Magnitude())
