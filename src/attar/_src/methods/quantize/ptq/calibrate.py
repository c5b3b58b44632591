"""Calibration: each site gets the grid of the range that an observer chooses from what passed the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import fx

from attar._src.artifact.manifest import Activation
from attar._src.methods.quantize.ptq.observer import Observer
from attar._src.methods.quantize.ptq.solver import TINY
from attar._src.model.collect import Request
from attar._src.model.sites import Site
from attar._src.model.statistics import Statistic


def site_requests(sites: Sequence[Site], observer: Observer) -> dict[Site, tuple[Request]]:
    """Return what an observer wants to see of each site: of all its sources as one."""
    return {site: (Request(site.sources, observer.statistic),) for site in sites}


def site_grids(
    graph: fx.GraphModule, seen: Mapping[Site, Statistic], observer: Observer, bits: int
) -> dict[str, Activation]:
    """Return the grid of every value of every site, in graph order.

    The grid is unsigned with a zero point, ``S = (high - low) / (2^bits - 1)``, ``Z = round(-low / S)``, and spans
    zero, so that zero (padding, the floor of a ReLU) is exact.
    """
    place = {node.name: position for position, node in enumerate(graph.graph.nodes)}
    grids = {site: spanning_grid(*observer.range(what, bits), bits) for site, what in seen.items()}
    values = sorted(((name, grid) for site, grid in grids.items() for name in site.values), key=lambda v: place[v[0]])
    return {name: Activation(value=name, bits=bits, scale=scale, zero_point=zero) for name, (scale, zero) in values}


def spanning_grid(low: float, high: float, bits: int) -> tuple[float, int]:
    """Return scale and zero point of the unsigned grid that spans ``low``, ``high`` and zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    levels = (1 << bits) - 1
    scale = float(np.float32(max((high - low) / levels, TINY)))
    return scale, int(np.clip(np.rint(-low / scale), 0, levels))
