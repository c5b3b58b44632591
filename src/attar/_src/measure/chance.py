"""Chance: what a model reaches that gives every example the same answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

#: Standard errors above a constant answer within which a share is still chance.
_ERRORS = 3.0
#: Share of what a reference knows beyond the constant answer that a model must keep not to be ruined.
KEPT_OF_KNOWN = 0.5


@dataclass(frozen=True)
class Chance:
    """The metric of the best constant answer.

    Attributes:
        answer: that answer in words.
        value: its metric.
        limit: the metric that a model has to beat: for shares ``value + 3 sqrt(value (1 - value) / n)`` of n targets,
            because a model that guesses is not exactly at ``value``.
        larger_is_better: which side of ``limit`` is better.

    Example:
        >>> share_of("class 7", 0.1, 900).explains(0.12)
        True
    """

    answer: str
    value: float
    limit: float
    larger_is_better: bool = True

    def explains(self, found: float) -> bool:
        """Return whether a model of this metric is no better than the constant answer."""
        return found <= self.limit if self.larger_is_better else found >= self.limit

    def ruined(self, reference: float, found: float) -> bool:
        """Return whether most of what a reference knows is lost: of the metric beyond that of the constant answer.

        A reference that is no better than that answer has nothing to lose. A metric that is not finite is ruined.

        Example: of 91 % in ten classes 81 points can be lost, so that 50 % is ruined.
            >>> share_of("class 7", 0.1, 900).ruined(0.91, 0.5), share_of("class 7", 0.1, 900).ruined(0.91, 0.51)
            (True, False)
        """
        if self.explains(reference):
            return False
        lost = reference - found if self.larger_is_better else found - reference
        return not lost <= (1 - KEPT_OF_KNOWN) * abs(reference - self.value)

    def words(self, metric: str, found: float) -> str:
        """Return what it means that a model is no better: ``accuracy of 0.12 is no better than chance: ...``."""
        constant = f"{self.answer} for every example reaches {self.value:.4g}"
        return f"{metric} of {found:.4g} is no better than chance: {constant}"


@runtime_checkable
class HasChance(Protocol):
    """A metric that knows the constant answer; users' metrics may have the method too."""

    def chance(self, outputs: NDArray[Any], targets: NDArray[Any]) -> Chance:
        """Return the chance for the targets of a set."""
        ...


def share_of(answer: str, value: float, count: int) -> Chance:
    """Return the chance of a metric from 0 to 1 over ``count`` targets."""
    return Chance(answer, value, value + _ERRORS * math.sqrt(value * (1 - value) / count))


def most_frequent(labels: NDArray[Any]) -> tuple[int, float]:
    """Return the most frequent of labels, of one or more, and its share: ``[3, 1, 3]`` give ``(3, 0.667)``."""
    values, counts = np.unique(labels, return_counts=True)
    return int(values[counts.argmax()]), float(counts.max() / counts.sum())


def is_ruined(lost: float | None) -> bool:
    """Return whether more than half of predictions, or of a variance, is lost, or what is lost is no number."""
    return lost is not None and not lost <= 1 - KEPT_OF_KNOWN
