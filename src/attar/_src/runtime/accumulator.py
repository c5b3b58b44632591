"""The int32 accumulator of an integer product: its scale, the bias in units of it, and its range.

On x86 without VNNI the fast kernels of uint8 by int8 add products in pairs first, in 16 bits (``vpmaddubsw``), and
saturate there: 255 * 100 + 255 * 100 = 51,000 becomes 32,767. A pair is two neighbours 2i and 2i + 1 of the order in
which a kernel sums. In ONNX Runtime (MLAS) that order is

- of a matrix, the axis that is summed over;
- of a convolution, in each group, kernel positions and then channels: w[o, 0, 0, :], w[o, 0, 1, :], ...
  (``QLinearConv`` reorders filters to HWIO and inputs to NHWC; ``MlasConvSym`` has a multiple of 4 channels and so
  the same pairs).

Kernels of depthwise convolutions, of one input and one output channel a group, widen both factors first and are exact.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attar._src.runtime.grid import Grid
from attar._src.runtime.weights import Int8Weight

_INT16, _INT32 = 2**15 - 1, 2**31 - 1
_NORMAL = np.finfo(np.float32).tiny
_ROUNDING = 2 * float(np.finfo(np.float32).eps)
_OVERFLOW = "its sums would not fit 32 bits"


class Accumulator(NamedTuple):
    """The accumulator of an integer product, with the value ``step * (sum of code products + bias)``.

    ``step`` is input scale times weight scale, ``(1,)`` or ``(output channels,)``; ``bias`` is ``(output channels,)``.
    """

    step: NDArray[np.float32]
    bias: NDArray[np.int32] | None


def accumulator_of(weight: Int8Weight, grid: Grid, axis: int, bias: NDArray[Any] | None) -> Accumulator | str:
    """Return the accumulator of a product of data on ``grid`` and a weight, or why int32 cannot represent it exactly.

    The bias must already be a multiple of the step, because a kernel must not round what the file does not. Float32
    rounding is tolerated: of the step, of the product and of reading it back, each at most 2^-24 of the bias, together
    less than 2^-22.

    Args:
        axis: the output axis of the weight.
        bias: one float32 per output channel.
    """
    with np.errstate(all="ignore"):
        step = weight.scale * np.float32(grid.scale)
    if not (np.isfinite(step) & (step >= _NORMAL)).all():
        return "its scale times that of its input is no normal float32"
    others = tuple(i for i in range(weight.codes.ndim) if i != axis)
    largest = np.abs(weight.codes.astype(np.int64)).sum(others)
    largest *= max(grid.zero_point - grid.low, grid.high - grid.zero_point)
    if bias is None:
        return Accumulator(step, None) if (largest <= _INT32).all() else _OVERFLOW
    if bias.shape not in ((largest.size,), (1, largest.size)) or bias.dtype != np.float32:
        return "its bias is not a float32 number for each output channel"
    with np.errstate(invalid="ignore"):  # a signalling NaN warns when it is cast; below it exceeds 32 bits as any NaN
        exact = bias.reshape(-1).astype(np.float64)
    steps = np.rint(exact / step)
    if not (largest + np.abs(steps) <= _INT32).all():
        return _OVERFLOW
    if (np.abs(steps * step - exact) > _ROUNDING * np.abs(exact)).any():
        return "its bias is not in whole steps of input scale times weight scale, and would be rounded"
    return Accumulator(step, steps.astype(np.int32))


def may_saturate(weight: Int8Weight, grid: Grid, axis: int, groups: int = 1) -> bool:
    """Return whether a product of data on ``grid`` and a weight may saturate where pairs are added in 16 bits."""
    # Padding writes the zero point, which a Clip may have cut off the grid.
    limit = pair_limit(max(grid.high, grid.zero_point))
    return bool((largest_pairs(neighbours(weight.codes, axis, groups)) > limit).any())


def neighbours(codes: NDArray[Any], axis: int, groups: int = 1) -> NDArray[Any]:
    """Return the weight codes whose products are added in 16 bits, in their type.

    Args:
        codes: of a matrix, or of a convolution (out, in / groups, ...).
        axis: of the output channels.

    Returns:
        (output channels, pairs, 2), the last with a zero if their number is odd; no pairs of a depthwise convolution.

    Example:
        >>> neighbours(np.array([[1, 2, 3]], np.int8), 0).tolist()
        [[[1, 2], [3, 0]]]
    """
    lines = np.moveaxis(codes, axis, 0)
    if lines.ndim > 2:
        depthwise = groups > 1 and groups == len(lines) and lines.shape[1] == 1
        lines = lines[:, :0] if depthwise else np.moveaxis(lines, 1, -1)
    flat = lines.reshape(len(lines), math.prod(lines.shape[1:]))
    return np.pad(flat, ((0, 0), (0, flat.shape[1] % 2))).reshape(len(lines), -(-flat.shape[1] // 2), 2)


def largest_pairs(pairs: NDArray[np.int8]) -> NDArray[np.int16]:
    """Return the largest |a + b| of each output channel, over inputs of which any may be zero: 100 of (100, -3)."""
    one, other = (pairs[..., side].astype(np.int16) for side in (0, 1))
    above = (np.maximum(one, 0) + np.maximum(other, 0)).max(-1, initial=0)
    below = (np.minimum(one, 0) + np.minimum(other, 0)).min(-1, initial=0)
    largest: NDArray[np.int16] = np.maximum(above, -below)
    return largest


def pair_limit(largest: int) -> int:
    """Return the largest |a + b| of a pair that fits 16 bits with input codes from 0 to ``largest``.

    Example:
        >>> pair_limit(255)
        128
    """
    return _INT16 // max(largest, 1)
