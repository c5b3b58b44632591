"""Calibration: the grids of sites from the ranges an observer chooses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import fx

from attar._src.artifact.manifest import Activation
from attar._src.methods.quantize.ptq.observer import Observer
from attar._src.methods.quantize.ptq.solver import TINY
from attar._src.model.collect import Request
from attar._src.model.sites import Site
from attar._src.model.statistics import Statistic


def site_requests(sites: Iterable[Site], observer: Observer) -> dict[Site, tuple[Request]]:
    """Return the request for an observer's statistic of each site, over all of the site's sources."""
    return {site: (Request(site.sources, observer.statistic),) for site in sites}


def site_grids(
    graph: fx.GraphModule, seen: Mapping[Site, Statistic], observer: Observer, bits: int
) -> dict[str, Activation]:
    """Return value -> :func:`spanning_grid` of its site's range, in graph order."""
    grids = {}
    for site, statistic in seen.items():
        scale, zero_point = spanning_grid(*observer.range(statistic, bits), bits)
        for name in site.values:
            grids[name] = Activation(value=name, bits=bits, scale=scale, zero_point=zero_point)
    return {node.name: grids[node.name] for node in graph.graph.nodes if node.name in grids}


def spanning_grid(low: float, high: float, bits: int) -> tuple[float, int]:
    """Return scale and zero point of the unsigned grid that spans ``low``, ``high`` and zero.

    ``S = (high - low) / (2^bits - 1)`` and ``Z = round(-low / S)``, so that zero (padding, ReLU) is exact.

    Example:
        >>> spanning_grid(-1.0, 3.0, 2)
        (1.3333333730697632, 1)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    levels = (1 << bits) - 1
    scale = float(np.float32(max((high - low) / levels, TINY)))
    return scale, int(np.clip(np.rint(-low / scale), 0, levels))
