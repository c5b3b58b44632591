"""Histogram: how the decoded values of one tensor spread, and the points of the grid they lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import Codebook, CompressedTensor, Quantized, Sparse

#: Bins are about twice the root of the number of values, within these bounds.
FEWEST_BINS, MOST_BINS = 21, 81
#: Points of a grid that are drawn at most; a scale a channel makes thousands.
MOST_POINTS = 512


@dataclass(frozen=True)
class WeightHistogram:
    """The values of a tensor, counted.

    Attributes:
        centres, counts: of bins of equal width, zeros left out.
        zeros: how many values are exactly zero.
        elements: how many values there are; those that are not finite are in no bin.
        points: points of the grid, increasing, spread evenly over all of them where there are too many; empty for a
            tensor without a grid.
        all_points: how many the grid has.
        codes, uses: on a grid of equal steps, every code less its zero point, and how many values have it.
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
    """Count the values of a tensor and find its grid's points."""
    dense = np.asarray(tensor.dense(), np.float64).ravel()
    values = dense[np.isfinite(dense) & (dense != 0)]
    reach = float(np.abs(values).max(initial=0)) or 1.0
    # An odd number of bins about zero: none of them has zero for an edge.
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
        points=points[_spread(points.size, MOST_POINTS)],
        all_points=points.size,
        codes=codes,
        uses=uses,
        grid=_words(tensor),
    )


def _spread(size: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` indices into ``size`` things, the first and the last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int64))


def _points(tensor: CompressedTensor) -> NDArray[np.float64]:
    """Return every value that a code of the tensor could stand for, in any of its channels, groups or buckets."""
    if isinstance(tensor, Quantized):
        zeros = np.zeros_like(tensor.scale) if tensor.zero_point is None else tensor.zero_point
        scale, zero = np.unique(np.stack([tensor.scale, zeros]), axis=1).astype(np.float64)
        levels = np.arange(tensor.scheme.qmin, tensor.scheme.qmax + 1)
        return np.ravel(scale[:, None] * (levels - zero[:, None]))
    if isinstance(tensor, Codebook):
        scale, offset = np.unique(np.stack([tensor.scale, tensor.offset]), axis=1).astype(np.float64)
        return np.ravel(scale[:, None] * tensor.points + offset[:, None])
    return np.zeros(0)


def _codes(tensor: CompressedTensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how often each multiple of a step occurs, over all channels."""
    if not isinstance(tensor, Quantized):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    index = tensor.scheme.granularity.index(tensor.shape)
    zero = 0 if tensor.zero_point is None else tensor.zero_point.astype(np.int64)[index]
    steps = (tensor.codes.astype(np.int64) - zero).ravel()
    low, high = _reach(tensor.scheme, tensor.zero_point)
    return np.arange(low, high + 1), np.bincount(steps - low, minlength=high - low + 1)


def _reach(scheme: Scheme, zero_point: NDArray[Any] | None) -> tuple[int, int]:
    if zero_point is None or not zero_point.size:
        return scheme.qmin, scheme.qmax
    return scheme.qmin - int(zero_point.max()), scheme.qmax - int(zero_point.min())


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


def largest(sizes: Sequence[int], most: int) -> list[int]:
    """Return the indices of the ``most`` largest, in their own order."""
    return sorted(sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))[:most])
