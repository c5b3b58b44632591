"""Outliers: a few values far from all others, which take the codes of the others; and what the user should know of it.

At 8 bits a grid from 0 to 10,000 has steps of 39. Values between 0 and 1 are all zero on it.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from attar._src.artifact.manifest import Activation
from attar._src.methods.quantize.ptq.calibration import Percentile
from attar._src.model.collect import Clip, Request
from attar._src.model.sites import Site
from attar._src.model.statistics import Histogram, Range

#: Values this many times as far as the percentile range reach so far that they are clipped while others are observed.
FAR = 4.0
#: Share of a grid's range that leaves few codes: 4 of 256.
FEW = 1 / 64
#: Share of the values that are not zero which should have more codes than that.
MOST = 0.99


def add_clips(clips: MutableMapping[str, Clip], seen: Mapping[Any, Any]) -> bool:
    """Add the clips of sites whose outliers reach ``FAR`` times as far as the percentile range, and say if any is new.

    The grid of such a site clips these outliers. What is computed from them must be observed without them too: one
    broken pixel is nine values behind a 3x3 convolution and 25 behind two, more than a percentile leaves out.

    Args:
        clips: source of a site -> its clip.
        seen: site -> its statistic; other keys and statistics other than histograms are ignored.
    """
    new = False
    for site, statistic in seen.items():
        if not isinstance(site, Site) or not isinstance(statistic, Histogram):
            continue
        low, high = Percentile().range(statistic, 8)
        low, high = min(low, 0.0), max(high, 0.0)
        if max(statistic.high, 0.0) - min(statistic.low, 0.0) >= FAR * (high - low) > 0:
            clips.update({source: Clip(low, high) for source in site.sources})
            new = True
    return new


def source_requests(sites: tuple[Site, ...]) -> dict[tuple[Site, str], tuple[Request]]:
    """Return the requests for the range of every source of the sites that have several."""
    several = [(site, source) for site in sites if len(site.sources) > 1 for source in site.sources]
    return {(site, source): (Request((source,), Range),) for site, source in several}


def range_warnings(
    sites: Mapping[Site, Activation], seen: Mapping[Any, Any], clips: Mapping[str, Clip], layers: Mapping[Site, str]
) -> list[str]:
    """Return a sentence for every site whose grid clips far outliers, or leaves nearly all values few codes.

    Args:
        sites: site -> its grid.
        seen: site, or a source of a site of several -> its statistic.
        clips: source -> its clip in the last pass.
        layers: site -> the layers that read it, for the sentence; empty if none has a name.
    """
    found = []
    for site, grid in sites.items():
        read, span = layers[site], grid.scale * (grid.qmax - grid.qmin)
        keep = f"leave them in floating point (keep_activations={[read or site.sources[0]]})"
        where = f"value {' and '.join(map(repr, site.sources))}" + (f", read by {read!r}," if read else "")
        for source in site.sources:
            if source in clips and clips[source].outside:
                clip = clips[source]
                found.append(
                    f"{where} has {clip.outside:,} of {clip.elements:,} elements outside [{clip.low:.3g}, {clip.high:.3g}], "
                    f"the furthest at {clip.furthest:.3g}, and its grid clips them; if they are no faults of the data, "
                    f"scale the value (normalise, take the logarithm), {keep}, or span all with observer='minmax'"
                )
        statistic = seen.get(site)
        if isinstance(statistic, Histogram) and (width := _width_of_most(statistic)) < FEW * span:
            found.append(
                f"{where} has heavy tails: {MOST:.0%} of its elements that are not zero lie within {width:.3g} of zero "
                f"and share {1 + int(width / grid.scale)} of {grid.qmax - grid.qmin + 1} codes, as its grid reaches to "
                f"{_furthest(grid):.3g}; scale the value (normalise, take the logarithm) or {keep}"
            )
        found += [
            f"{where} puts values of different size on one grid: those of {source!r} reach to {reach:.3g} and get "
            f"{1 + int(reach / grid.scale)} of {grid.qmax - grid.qmin + 1} codes, as the grid reaches to "
            f"{_furthest(grid):.3g}; scale them alike before they are joined, or {keep}"
            for source in site.sources
            if 0 < (reach := _reach(seen.get((site, source)))) < FEW * span
        ]
    return found


def _width_of_most(seen: Histogram) -> float:
    """Return how far from zero ``MOST`` of the values reach that are not zero, infinity if all are zero."""
    counts, edges = seen.counts.copy(), seen.edges
    if seen.zeros >= counts.sum():
        return float("inf")
    middle = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, len(counts) - 1))
    counts[middle] = max(0, counts[middle] - seen.zeros)
    ends = np.maximum(np.abs(edges[1:]), np.abs(edges[:-1]))
    order = np.argsort(ends, kind="stable")
    cumulated = np.cumsum(counts[order])
    return float(ends[order][np.searchsorted(cumulated, MOST * cumulated[-1])])


def _reach(seen: Any) -> float:
    return max(abs(seen.low), abs(seen.high)) if isinstance(seen, Range) and seen.low <= seen.high else 0.0


def _furthest(grid: Activation) -> float:
    return grid.scale * max(grid.qmax - grid.zero_point, grid.zero_point - grid.qmin)
