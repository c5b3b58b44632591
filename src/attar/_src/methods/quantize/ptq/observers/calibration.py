"""Calibration: observers choose the ranges of sites from statistics of their values, and grids span these ranges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from attar._src.artifact.manifest import Activation
from attar._src.methods.quantize.ptq.solvers.solver import RATIOS, TINY
from attar._src.model.collect import Request
from attar._src.model.sites import Site
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
    """The range without one value in 100,000 at each end, and at most one in 100 of those that are not zero.

    If these reach four times as far, as one broken pixel does, they are clipped while other ranges are found too.
    """

    name: ClassVar[str] = "percentile"
    share: ClassVar[float] = 1e-5

    def range(self, seen: Histogram, bits: int) -> tuple[float, float]:
        cumulated, last = np.cumsum(seen.counts), len(seen.counts) - 1
        tail = min(self.share * cumulated[-1], 0.01 * (cumulated[-1] - seen.zeros))
        edges = seen.edges
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


class Automatic(Observer):
    """``percentile`` with 8 bits, ``mse`` with fewer, where clipping what is rare gains more than it costs.

    ResNet-20 with weights and activations of 4 bits, divergence from the floating outputs: 0.051 and 0.016.
    """

    name: ClassVar[str] = "auto"

    @staticmethod
    def chosen(bits: int) -> Observer:
        """Return the observer for grids of so many bits."""
        return Percentile() if bits >= 8 else LeastSquares()

    def range(self, seen: Histogram, bits: int) -> tuple[float, float]:
        return self.chosen(bits).range(seen, bits)


def site_requests(sites: Iterable[Site], observer: Observer) -> dict[Site, tuple[Request]]:
    """Return the request for an observer's statistic of each site, over all of the site's sources."""
    return {site: (Request(site.sources, observer.statistic),) for site in sites}


def site_grids(
    seen: Mapping[Site, Statistic], observer: Observer, bits: Mapping[Site, int], *, power_of_two: bool = False
) -> dict[str, Activation]:
    """Return value -> :func:`spanning_grid` of its site's range, with the site's bits."""
    grids = {}
    for site, statistic in seen.items():
        low_high = observer.range(statistic, bits[site])
        scale, zero_point = spanning_grid(*low_high, bits[site], power_of_two=power_of_two)
        for name in site.values:
            grids[name] = Activation(value=name, bits=bits[site], scale=scale, zero_point=zero_point)
    return grids


def spanning_grid(low: float, high: float, bits: int, *, power_of_two: bool = False) -> tuple[float, int]:
    """Return scale and zero point of the unsigned grid that spans ``low``, ``high`` and zero.

    ``S = (high - low) / (2^bits - 1)`` and ``Z = round(-low / S)``, so that zero (padding, ReLU) is exact. A value that
    was always zero gets the grid of [0, 1], a usual one. With ``power_of_two`` S is rounded up to one.

    Example:
        >>> spanning_grid(-1.0, 3.0, 2)
        (1.3333333730697632, 1)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    levels = (1 << bits) - 1
    scale = float(np.float32((high - low) / levels))
    if scale < TINY:
        low, scale = 0.0, float(np.float32(1 / levels))
    scale = 2.0 ** np.ceil(np.log2(scale)) if power_of_two else scale
    return scale, int(np.clip(np.rint(-low / scale), 0, levels))
