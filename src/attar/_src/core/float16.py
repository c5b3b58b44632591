"""Convert float32 to float16 or bfloat16 (rounded half to even) and back (exact), or round it up to a few digits."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import SpecError

#: Element types of stored scales. Arrays of ``bf16`` hold its bits, the upper half of a float32, as uint16.
ScaleType = Literal["f32", "f16", "bf16"]
HALF_TYPES = ("f16", "bf16")
#: Binary digits behind the point of scales that Attar chooses itself: at most 1.6 % above the least that clips nothing.
SHORT_BITS = 6
#: Those of scales whose codes are chosen already.
SCALE_BITS = 8


def to_half(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Round values without NaN to ``f16`` or ``bf16``, half to even; values beyond its range become infinite."""
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype("<u2").reshape(values.shape)


def from_half(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Convert stored values of type ``f32``, ``f16`` or ``bf16`` to float32, exactly."""
    if dtype == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs warn on some processors; the caller refuses NaN anyway
        return stored.astype(np.float32)


def round_up(values: NDArray[np.float32], bits: int = SHORT_BITS) -> NDArray[np.float32]:
    """Round positive values up to ``bits`` binary digits behind the point: 1.3 -> 1.3125 with 4.

    The result is at most ``1 + 2^-bits`` times the value; a value that is such a number but for rounding errors (four
    units in the last place) is that number. Such values take ``bits`` + 2 or 3 bits each in a file where those of one
    tensor are within a factor of 4 or 8.
    """
    mask = np.uint32((1 << (23 - bits)) - 1)
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((whole + (mask - np.uint32(4))) & ~mask).view(np.float32).reshape(values.shape)


def round_nearest(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round positive values to ``bits`` binary digits behind the point: 1.3 -> 1.3125 with 4, 1.27 -> 1.25."""
    mask = np.uint32((1 << (23 - bits)) - 1)
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((whole + (mask // 2 + 1)) & ~mask).view(np.float32).reshape(values.shape)


def check_exact(dtype: str, *arrays: NDArray[np.float32]) -> None:
    """Raise SpecError unless ``dtype`` is a type of scales that represents every value exactly."""
    if dtype == "f32":
        return
    if dtype not in HALF_TYPES:
        raise SpecError(f"scales are stored as f32, f16 or bf16, not as {dtype!r}")
    for values in arrays:
        exact = from_half(to_half(values, dtype), dtype) == values
        if not exact.all():
            raise SpecError(f"{exact.size - int(exact.sum())} of {exact.size} scales are not exact in {dtype}")
