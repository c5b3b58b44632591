"""Observers: choose the range of a site's grid from a statistic of its values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from attar._src.methods.quantize.ptq.solver import RATIOS
from attar._src.model.statistics import Histogram, Range, Statistic


class Observer(ABC):
    """Chooses the range of a site's grid.

    Attributes:
        name: name in recipes.
        statistic: statistic it needs of the site's values.
    """

    name: ClassVar[str]
    statistic: ClassVar[type[Statistic]] = Histogram

    @abstractmethod
    def range(self, seen: Any, bits: int) -> tuple[float, float]:
        """Return the smallest and largest value of the grid from the statistic of all values.

        A range without zero is extended to it.
        """


class MinMax(Observer):
    """The range of all values: none is clipped, and one outlier makes the grid coarser for all."""

    name: ClassVar[str] = "minmax"
    statistic: ClassVar[type[Statistic]] = Range

    def range(self, seen: Range, bits: int) -> tuple[float, float]:
        return seen.low, seen.high


class Percentile(Observer):
    """The range without one value in 100,000 at each end."""

    name: ClassVar[str] = "percentile"
    share: ClassVar[float] = 1e-5

    def range(self, seen: Histogram, bits: int) -> tuple[float, float]:
        cumulated, last = np.cumsum(seen.counts), len(seen.counts) - 1
        tail = self.share * cumulated[-1]
        edges = np.linspace(seen.low, seen.high, len(seen.counts) + 1)
        start = int(np.searchsorted(cumulated, tail, side="right"))
        stop = int(np.searchsorted(cumulated, cumulated[-1] - tail, side="left"))
        return float(edges[min(start, last)]), float(edges[min(stop, last) + 1])


class LeastSquares(Observer):
    """The range, of 71 reduced by ``RATIOS``, whose grid has the smallest squared error over the histogram."""

    name: ClassVar[str] = "mse"

    def range(self, seen: Histogram, bits: int) -> tuple[float, float]:
        centres, levels = seen.centres, (1 << bits) - 1
        low, high = min(seen.low, 0.0), max(seen.high, 0.0)
        best, chosen = np.inf, (low, high)
        for ratio in RATIOS:
            start, stop = low * ratio, high * ratio
            step = max((stop - start) / levels, np.finfo(np.float32).tiny)
            rounded = np.clip(np.rint((centres - start) / step), 0, levels) * step + start
            error = float(seen.counts @ (centres - rounded) ** 2)
            if error < best:
                best, chosen = error, (start, stop)
        return chosen
