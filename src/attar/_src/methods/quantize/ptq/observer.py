"""Observers: from what passes through a site, the range its grid spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

BINS = 4096


@dataclass(frozen=True)
class Seen:
    """What passed through a site: its extremes, and how its values spread between them.

    Attributes:
        low, high: smallest and largest value seen.
        counts: values in each of :data:`BINS` equal bins from low to high.
    """

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5), np.float64)


class Observer(Protocol):
    """Chooses a range."""

    name: ClassVar[str]

    def range(self, seen: Seen, bits: int) -> tuple[float, float]:
        """Return the smallest and largest value the grid spans."""
        ...


class MinMax:
    """The range spans every value seen. Nothing clipped, and one outlier costs everyone precision."""

    name: ClassVar[str] = "minmax"

    def range(self, seen: Seen, bits: int) -> tuple[float, float]:
        """Return the extremes."""
        return seen.low, seen.high


class Percentile:
    """The range leaves out one value in 100,000 on each side."""

    name: ClassVar[str] = "percentile"
    share: ClassVar[float] = 1e-5

    def range(self, seen: Seen, bits: int) -> tuple[float, float]:
        """Return the values below and above which ``share`` of all values lie."""
        cumulated = np.cumsum(seen.counts)
        tail = self.share * cumulated[-1]
        edges = np.linspace(seen.low, seen.high, len(seen.counts) + 1)
        first = int(np.searchsorted(cumulated, tail, side="right"))
        last = int(np.searchsorted(cumulated, cumulated[-1] - tail, side="left"))
        return float(edges[min(first, len(seen.counts) - 1)]), float(edges[min(last, len(seen.counts) - 1) + 1])


class LeastSquares:
    """The range whose grid has the smallest squared error over the values seen; the tails are cut where that pays."""

    name: ClassVar[str] = "mse"

    def range(self, seen: Seen, bits: int) -> tuple[float, float]:
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
