"""The int32 accumulator of an integer product: its scale, the bias in units of it, and its range."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attar._src.runtime.grid import Grid
from attar._src.runtime.weights import Int8Weight

_INT32 = 2**31 - 1
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
