"""The 32-bit sums of an integer product: what one unit of them stands for, the bias in such units, and their range.

Part of ``runtime``, used by ``runtime.lower``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.runtime.grid import Grid
from attar._src.runtime.weights import Int8Weight

_INT32 = 2**31 - 1
_NORMAL = np.finfo(np.float32).tiny
_ROUNDING = 2 * float(np.finfo(np.float32).eps)
_OVERFLOW = "its sums would not fit 32 bits"


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums of an integer product: they stand for ``step * (sum of code products + bias)``.

    Attributes:
        step: float32, input scale times weight scale, ``(1,)`` or one for each output channel.
        bias: int32, one for each output channel; None where there is none.
    """

    step: NDArray[np.float32]
    bias: NDArray[np.int32] | None


def sums_of(weight: Int8Weight, grid: Grid, axis: int, bias: NDArray[Any] | None) -> Sums | str:
    """Return the sums of a product, or why integers of 32 bits cannot hold what it means.

    The bias has to be in whole steps already: what a kernel would round is not what the file says. What float32 may add
    to whole steps is let pass: a rounding of the step, of the product, and where the steps are read, each of at most
    2^-24 of the bias, 2^-22 together and with room.

    Args:
        weight: the second factor.
        grid: the grid of the first factor.
        axis: the output axis of the weight.
        bias: what is added, as real numbers.
    """
    with np.errstate(all="ignore"):
        step = weight.scale * np.float32(grid.scale)
    if not (np.isfinite(step) & (step >= _NORMAL)).all():
        return "its scale times that of its input is no normal float32"
    others = tuple(i for i in range(weight.codes.ndim) if i != axis)
    largest = np.abs(weight.codes.astype(np.int64)).sum(others)
    largest *= max(grid.zero_point - grid.low, grid.high - grid.zero_point)
    if bias is None:
        return Sums(step, None) if (largest <= _INT32).all() else _OVERFLOW
    if bias.shape not in ((largest.size,), (1, largest.size)) or bias.dtype != np.float32:
        return "its bias is not a float32 number for each output channel"
    exact = bias.reshape(-1).astype(np.float64)
    steps = np.rint(exact / step)
    if not (largest + np.abs(steps) <= _INT32).all():
        return _OVERFLOW
    if (np.abs(steps * step - exact) > _ROUNDING * np.abs(exact)).any():
        return "its bias is not in whole steps of input scale times weight scale, and would be rounded"
    return Sums(step, steps.astype(np.int32))
