"""Calibration: run real inputs through the graph, see what passes each site, and give the site its grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import ModelError
from attar._src.core.progress import track
from attar._src.methods.quantize.ptq.observer import BINS, Observer, Seen
from attar._src.methods.quantize.ptq.solver import TINY
from attar._src.model.sites import Site, observe
from attar._src.work.compressed_model import CalibrationInputs


def calibrate(
    graph: fx.GraphModule, sites: Sequence[Site], calibration: CalibrationInputs, observer: Observer, bits: int
) -> dict[str, Activation]:
    """Return the grid of every value of every site, in graph order.

    The grid is unsigned with a zero point, ``S = (high - low) / (2^bits - 1)``, ``Z = round(-low / S)``, and spans
    zero, so that zero (padding, the floor of a ReLU) is exact.

    Raises:
        ModelError: a NaN or an infinity passed a site.
    """
    owner = {name: position for position, site in enumerate(sites) for name in site.sources}
    seen = _watch(graph, owner, len(sites), calibration)
    grids = []
    for what in seen:
        low, high = observer.range(what, bits)
        grids.append(spanning_grid(low, high, bits))
    place = {node.name: position for position, node in enumerate(graph.graph.nodes)}
    values = sorted(
        ((name, g) for site, g in zip(sites, grids, strict=True) for name in site.values), key=lambda v: place[v[0]]
    )
    return {name: Activation(value=name, bits=bits, scale=scale, zero_point=zero) for name, (scale, zero) in values}


def _watch(graph: fx.GraphModule, owner: dict[str, int], count: int, calibration: CalibrationInputs) -> list[Seen]:
    """Run every batch twice: once for the extremes, once for the histograms between them."""
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    counts: NDArray[np.int64] = np.zeros((count, BINS), np.int64)

    def see_extremes(name: str, value: Any) -> None:
        smallest, largest = torch.aminmax(value)
        if not (torch.isfinite(smallest) and torch.isfinite(largest)):
            raise ModelError(f"activation {name!r} was not finite on the calibration data; look at the inputs")
        low[owner[name]] = np.minimum(low[owner[name]], smallest.item())
        high[owner[name]] = np.maximum(high[owner[name]], largest.item())

    def see_spread(name: str, value: Any) -> None:
        site = owner[name]
        if high[site] > low[site]:
            spread = torch.histc(value.float(), BINS, float(low[site]), float(high[site]))
            counts[site] += spread.numpy().astype(np.int64)
        else:
            counts[site, 0] += value.numel()

    with torch.no_grad():
        for see, what in ((see_extremes, "ranges"), (see_spread, "histograms")):
            for batch in track(calibration.batches, f"calibrating ({what})"):
                observe(graph, batch, owner, see)
    return [Seen(float(a), float(b), spread) for a, b, spread in zip(low, high, counts, strict=True)]


def spanning_grid(low: float, high: float, bits: int) -> tuple[float, int]:
    """Return scale and zero point of the unsigned grid that spans ``low``, ``high`` and zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    levels = (1 << bits) - 1
    scale = float(np.float32(max((high - low) / levels, TINY)))
    return scale, int(np.clip(np.rint(-low / scale), 0, levels))
