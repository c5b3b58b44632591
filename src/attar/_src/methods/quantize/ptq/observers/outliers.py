"""Outliers: a few values far from all others, which take the codes of the others; and what the user should know of it.

At 8 bits a grid from 0 to 10,000 has steps of 39. Values between 0 and 1 are all zero on it.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from attar._src.artifact.manifest import Activation
from attar._src.methods.quantize.ptq.observers.calibration import Percentile
from attar._src.model.collect import Clip, Request
from attar._src.model.sites import Site
from attar._src.model.statistics import Histogram, Range
from attar._src.model.weights import layer_input

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


def channel_reaches(graph: fx.GraphModule, batches: Sequence[Sequence[torch.Tensor]]) -> dict[str, NDArray[np.float64]]:
    """Return input of the graph that a layer multiplies -> the largest magnitude in each of its channels.

    Channels inside a network differ by nature; those of an input (columns of a table) should not.
    """
    found = {}
    for place, node in enumerate(graph.graph.find_nodes(op="placeholder")):
        read = next((read for user in node.users if (read := layer_input(graph, user)) is not None), None)
        if read is not None:
            each = [batch[place].detach().abs().movedim(read.window.axis, 0).flatten(1) for batch in batches]
            largest = [x.nan_to_num(0.0, 0.0, 0.0).amax(1) for x in each if x.numel()]
            found[node.name] = torch.stack(largest).amax(0).double().numpy()
    return found


@dataclass(frozen=True)
class _Place:
    """A site in the sentences of a warning: its grid, and the layer that reads it, if one does."""

    site: Site
    grid: Activation
    layer: str

    @property
    def name(self) -> str:
        values = " and ".join(map(repr, self.site.sources))
        return f"value {values}, read by {self.layer!r}," if self.layer else f"value {values}"

    @property
    def keep(self) -> str:
        return f"leave them in floating point (keep_activations={[self.layer or self.site.sources[0]]})"

    @property
    def few(self) -> float:
        """How far values reach that get few codes."""
        return FEW * self.grid.scale * (self.grid.qmax - self.grid.qmin)

    def codes(self, reach: float) -> str:
        """Return how many codes values get that reach so far."""
        grid = self.grid
        furthest = grid.scale * max(grid.qmax - grid.zero_point, grid.zero_point - grid.qmin)
        some, every = 1 + int(reach / grid.scale), grid.qmax - grid.qmin + 1
        return f"{some} of {every} codes, as the grid reaches to {furthest:.3g}"


def range_warnings(
    sites: Mapping[Site, Activation],
    seen: Mapping[Any, Any],
    clips: Mapping[str, Clip],
    layers: Mapping[Site, str],
    channels: Mapping[str, NDArray[np.float64]],
) -> list[str]:
    """Return a sentence for every site whose grid clips far outliers, or leaves nearly all values few codes.

    Args:
        sites: site -> its grid.
        seen: site, or a source of a site of several -> its statistic.
        clips: source -> its clip in the last pass.
        layers: site -> a layer that reads it, for the sentence; empty if none does.
        channels: input of the graph -> :func:`channel_reaches`.
    """
    found: list[str] = []
    for site, grid in sites.items():
        place = _Place(site, grid, layers[site])
        found += [_clipped(place, clips[each]) for each in site.sources if each in clips and clips[each].outside]
        found += _tails(place, seen.get(site))
        found += [each for source in site.sources if source in channels for each in _channels(place, channels[source])]
        found += [each for source in site.sources for each in _part(place, source, seen.get((site, source)))]
    return found


def _clipped(place: _Place, clip: Clip) -> str:
    return (
        f"{place.name} has {clip.outside:,} of {clip.elements:,} elements outside [{clip.low:.3g}, {clip.high:.3g}], "
        f"the furthest at {clip.furthest:.3g}, and its grid clips them; if they are no faults of the data, scale the "
        f"value (normalise, take the logarithm), {place.keep}, or span all with observer='minmax'"
    )


def _tails(place: _Place, seen: Any) -> list[str]:
    if not isinstance(seen, Histogram) or (width := _width_of_most(seen)) >= place.few:
        return []
    return [
        f"{place.name} has heavy tails: {MOST:.0%} of its elements that are not zero lie within {width:.3g} of zero "
        f"and share {place.codes(width)}; scale the value (normalise, take the logarithm) or {place.keep}"
    ]


def _channels(place: _Place, reaches: NDArray[np.float64]) -> list[str]:
    few = np.flatnonzero((reaches > 0) & (reaches < place.few))
    if not 0 < few.size < reaches.size:
        return []
    listed, reach = ", ".join(map(str, few[:6])) + (", ..." if few.size > 6 else ""), float(reaches[few].max())
    return [
        f"{place.name} has channels of different size: {few.size} of {reaches.size} ({listed}) reach to {reach:.3g} "
        f"and get {place.codes(reach)}; scale them alike (normalise, in the module or before it) or {place.keep}"
    ]


def _part(place: _Place, source: str, seen: Any) -> list[str]:
    if not isinstance(seen, Range) or not 0 < (reach := max(abs(seen.low), abs(seen.high))) < place.few:
        return []
    return [
        f"{place.name} puts values of different size on one grid: those of {source!r} reach to {reach:.3g} and get "
        f"{place.codes(reach)}; scale them alike before they are joined, or {place.keep}"
    ]


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
