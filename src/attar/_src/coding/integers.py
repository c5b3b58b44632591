"""Whole numbers of up to 32 bits as packed bits (``docs/format.md``, section 4.1): what 256 symbols are too few for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import ArtifactError

_Numbers = NDArray[np.uint32]
_BLOCK = 1 << 16  # numbers whose bits are apart at once; those of a block fill whole bytes


def bit_width(levels: int) -> int:
    """Return the bits of a number below ``levels``: 1 -> 0, 2 -> 1, 257 -> 9."""
    return (levels - 1).bit_length()


def packed_bytes(count: int, levels: int) -> int:
    """Return the size in bytes of ``count`` packed numbers: 100 of 1000 levels take 10 bits each, 125 bytes."""
    return -(-count * bit_width(levels) // 8)


def pack_integers(numbers: _Numbers, levels: int) -> bytes:
    """Return numbers ``(n,)`` below ``levels`` as packed bits, the least significant bit first."""
    places = np.arange(bit_width(levels), dtype=np.uint32)
    blocks = (
        numbers[start : start + _BLOCK, None] >> places & np.uint32(1) for start in range(0, numbers.size, _BLOCK)
    )
    return b"".join(np.packbits(block.astype(np.uint8).reshape(-1), bitorder="little").tobytes() for block in blocks)


def unpack_integers(data: memoryview, count: int, levels: int) -> _Numbers:
    """Return the ``count`` numbers of ``data``, which has :func:`packed_bytes`.

    Raises:
        ArtifactError: a number is not below ``levels``, or a bit after the last is set.
    """
    width, packed = bit_width(levels), np.frombuffer(data, np.uint8)
    if (left := count * width % 8) and packed[-1] >> left:
        raise ArtifactError("packed numbers have bits set after the last")
    numbers = np.zeros(count, np.uint32)
    for start in range(0, count if width else 0, _BLOCK):
        block = numbers[start : start + _BLOCK]
        first = start * width // 8
        bits = np.unpackbits(packed[first : first + packed_bytes(block.size, levels)], bitorder="little")
        columns = bits[: block.size * width].reshape(block.size, width)
        for place in range(width):
            block |= columns[:, place].astype(np.uint32) << np.uint32(place)
    if (largest := int(numbers.max(initial=0))) >= levels:
        raise ArtifactError(f"a packed number is {largest}; it should be below {levels}")
    return numbers
