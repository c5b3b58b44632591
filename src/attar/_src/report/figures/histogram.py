"""The histogram of a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.tensors import Codebook, CompressedTensor, Quantized, Sparse

#: Bounds of the number of bins, which is about twice the root of the number of values.
FEWEST_BINS, MOST_BINS = 21, 81
#: Points of a grid drawn at most; with a scale per channel there are thousands.
MOST_POINTS = 512


@dataclass(frozen=True)
class WeightHistogram:
    """Counts of the decoded values of a tensor, and the points of its grid.

    Attributes:
        centres, counts: bins of equal width, without zeros.
        zeros, elements: number of zeros and of all values; those that are not finite are in no bin.
        points, all_points: points of the grid, increasing, thinned evenly if there are too many, and their number.
        codes, uses: on an affine grid, each code minus its zero point, and the number of values with it.
        grid: the grid in words.
    """

    centres: NDArray[np.float64]
    counts: NDArray[np.int64]
    zeros: int
    elements: int
    points: NDArray[np.float64]
    all_points: int
    codes: NDArray[np.int64]
    uses: NDArray[np.int64]
    grid: str


def weight_histogram(tensor: CompressedTensor) -> WeightHistogram:
    """Return the histogram of a tensor."""
    dense = np.asarray(tensor.dense(), np.float64).ravel()
    values = dense[np.isfinite(dense) & (dense != 0)]
    reach = float(np.abs(values).max(initial=0)) or 1.0
    # An odd number of bins around zero, so that zero is not an edge.
    bins = int(np.clip(2 * np.sqrt(values.size), FEWEST_BINS, MOST_BINS)) // 2 * 2 + 1
    counts, edges = np.histogram(values, bins, (-reach, reach))
    stored = tensor.values if isinstance(tensor, Sparse) else tensor
    points = np.unique(_points(stored))
    codes, uses = _codes(stored)
    return WeightHistogram(
        centres=(edges[1:] + edges[:-1]) / 2,
        counts=counts,
        zeros=int((dense == 0).sum()),
        elements=dense.size,
        points=points[np.linspace(0, points.size - 1, min(points.size, MOST_POINTS)).round().astype(np.int64)],
        all_points=points.size,
        codes=codes,
        uses=uses,
        grid=_words(tensor),
    )


def _points(tensor: CompressedTensor) -> NDArray[np.float64]:
    """Return all values that a code can decode to, over all channels, groups or buckets."""
    if isinstance(tensor, Quantized):
        scale, zero = np.unique(np.stack([tensor.scale, _zero_point(tensor)]), axis=1).astype(np.float64)
        levels = np.arange(tensor.scheme.qmin, tensor.scheme.qmax + 1)
        return np.ravel(scale[:, None] * (levels - zero[:, None]))
    if isinstance(tensor, Codebook):
        scale, offset = np.unique(np.stack([tensor.scale, tensor.offset]), axis=1).astype(np.float64)
        return np.ravel(scale[:, None] * tensor.points + offset[:, None])
    return np.zeros(0)


def _codes(tensor: CompressedTensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return multiples of the step and their counts, over all channels."""
    if not isinstance(tensor, Quantized):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    scheme, zero = tensor.scheme, _zero_point(tensor)
    steps = (tensor.codes - zero[scheme.granularity.index(tensor.shape)]).ravel()
    low, high = scheme.qmin - int(zero.max()), scheme.qmax - int(zero.min())
    return np.arange(low, high + 1), np.bincount(steps - low, minlength=high - low + 1)


def _zero_point(tensor: Quantized) -> NDArray[np.int64]:
    zero = np.zeros_like(tensor.scale) if tensor.zero_point is None else tensor.zero_point
    return zero.astype(np.int64)


def _words(tensor: CompressedTensor) -> str:
    if isinstance(tensor, Sparse):
        return f"zeros by a mask; where it is set, {_words(tensor.values)}"
    if isinstance(tensor, Quantized):
        kind = "symmetric" if tensor.scheme.symmetric else "asymmetric"
        return f"{tensor.scheme.bits} bits, {kind}, {_scales(tensor.scale, 'scale', tensor.scheme.granularity.kind)}"
    if isinstance(tensor, Codebook):
        return f"codebook of {tensor.points.size} points, {_scales(tensor.scale, 'range', tensor.granularity.kind)}"
    return f"no grid, stored as {tensor.dtype}"


def _scales(scale: NDArray[Any], noun: str, per: str) -> str:
    return f"one {noun} for the whole tensor" if scale.size == 1 else f"{scale.size:,} {noun}s, one for each {per}"
