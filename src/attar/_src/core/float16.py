"""Halves: float32 values in 16 bits, rounded once on the way there and exact on the way back."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import SpecError

#: Element types a file may keep scales in. bf16 is held in numpy as the uint16 of its bits.
ScaleType = Literal["f32", "f16", "bf16"]
#: Those of 16 bits.
HALF_TYPES = ("f16", "bf16")


def to_half(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return values in a type of 16 bits, rounded half to even; what it cannot hold is an infinity.

    Args:
        values: float32, any shape, without NaN.
        dtype: ``f16``, or ``bf16``: the upper half of a float32.
    """
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype("<u2").reshape(values.shape)


def from_half(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Return stored values of type ``f32``, ``f16`` or ``bf16`` as float32, exactly."""
    if dtype == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # some processors complain of signalling NaNs, which the caller refuses
        return stored.astype(np.float32)


def check_exact(dtype: str, *arrays: NDArray[np.float32]) -> None:
    """Check that a type holds every value as it is, so that what is computed and what is stored are the same.

    Raises:
        SpecError: it does not, or scales cannot have that type.
    """
    if dtype == "f32":
        return
    if dtype not in HALF_TYPES:
        raise SpecError(f"scales are stored as f32, f16 or bf16; {dtype!r} was asked")
    for values in arrays:
        exact = from_half(to_half(values, dtype), dtype) == values
        if not exact.all():
            raise SpecError(f"{exact.size - int(exact.sum())} of {exact.size} scales are no numbers of type {dtype}")
