"""Whole numbers of up to 32 bits as packed bits (``docs/format.md``, section 4.1): what 256 symbols are too few for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import ArtifactError

_Numbers = NDArray[np.uint32]


def bit_width(levels: int) -> int:
    """Return the bits of a number below ``levels``: 1 -> 0, 2 -> 1, 257 -> 9."""
    return (levels - 1).bit_length()


def packed_bytes(count: int, levels: int) -> int:
    """Return the size in bytes of ``count`` packed numbers: 100 of 1000 levels take 10 bits each, 125 bytes."""
    return -(-count * bit_width(levels) // 8)


def pack_integers(numbers: _Numbers, levels: int) -> bytes:
    """Return numbers ``(n,)`` below ``levels`` as packed bits, the least significant bit first."""
    bits = numbers[:, None] >> np.arange(bit_width(levels), dtype=np.uint32) & np.uint32(1)
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack_integers(data: memoryview, count: int, levels: int) -> _Numbers:
    """Return the ``count`` numbers of ``data``, which has :func:`packed_bytes`.

    Raises:
        ArtifactError: a number is not below ``levels``, or a bit after the last is set.
    """
    width = bit_width(levels)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if bits[count * width :].any():
        raise ArtifactError("packed numbers have bits set after the last")
    places = np.uint32(1) << np.arange(width, dtype=np.uint32)
    numbers = bits[: count * width].reshape(count, width) @ places if width else np.zeros(count, np.uint32)
    if (largest := int(numbers.max(initial=0))) >= levels:
        raise ArtifactError(f"a packed number is {largest}; it should be below {levels}")
    return numbers.astype(np.uint32)
