"""Observers: from a statistic of the values of a site, the range its grid spans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from attar._src.model.statistics import Histogram, Range, Statistic


class Observer(ABC):
    """Chooses the range of a site.

    Attributes:
        name: what it is called in recipes.
        statistic: what it sees of the values of the site.
    """

    name: ClassVar[str]
    statistic: ClassVar[type[Statistic]] = Histogram

    @abstractmethod
    def range(self, seen: Any, bits: int) -> tuple[float, float]:
        """Return the smallest and largest value the grid spans; it is widened to hold zero.

        Args:
            seen: the statistic of all values that passed.
            bits: of the grid.
        """


class MinMax(Observer):
    """The range spans every value seen. Nothing clipped, and one outlier costs everyone precision."""

    name: ClassVar[str] = "minmax"
    statistic: ClassVar[type[Statistic]] = Range

    def range(self, seen: Range, bits: int) -> tuple[float, float]:
        """Return the extremes."""
        return seen.low, seen.high


class Percentile(Observer):
    """The range leaves out one value in 100,000 on each side."""

    name: ClassVar[str] = "percentile"
    share: ClassVar[float] = 1e-5

    def range(self, seen: Histogram, bits: int) -> tuple[float, float]:
        """Return the values below and above which ``share`` of all values lie."""
        cumulated = np.cumsum(seen.counts)
        tail = self.share * cumulated[-1]
        edges = np.linspace(seen.low, seen.high, len(seen.counts) + 1)
        first = int(np.searchsorted(cumulated, tail, side="right"))
        last = int(np.searchsorted(cumulated, cumulated[-1] - tail, side="left"))
        return float(edges[min(first, len(seen.counts) - 1)]), float(edges[min(last, len(seen.counts) - 1) + 1])


class LeastSquares(Observer):
    """The range whose grid has the smallest squared error over the values seen; the tails are cut where that pays."""

    name: ClassVar[str] = "mse"

    def range(self, seen: Histogram, bits: int) -> tuple[float, float]:
        """Return the best of 71 shrinkings of the extremes, by the histogram."""
        centres, levels = seen.centres, (1 << bits) - 1
        low, high = min(seen.low, 0.0), max(seen.high, 0.0)
        best, chosen = np.inf, (low, high)
        for ratio in np.linspace(1.0, 0.3, 71):
            start, stop = low * ratio, high * ratio
            step = max((stop - start) / levels, np.finfo(np.float32).tiny)
            rounded = np.clip(np.rint((centres - start) / step), 0, levels) * step + start
            error = float(seen.counts @ (centres - rounded) ** 2)
            if error < best:
                best, chosen = error, (start, stop)
        return chosen
