"""Raw coder: bit packing."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Symbols
from attar._src.core.errors import ArtifactError


class Raw:
    """Bit packing without a table: ``ceil(log2(alphabet))`` bits per symbol (``docs/format.md``, section 4.1).

    Use it for nearly uniform symbols, and as the baseline of the other coders.
    """

    name: ClassVar[str] = "raw"

    def table(self, histogram: NDArray[np.int64]) -> bytes:
        """Return ``b""``: raw symbols need no table."""
        return b""

    def cost(self, histogram: NDArray[np.int64], table: bytes) -> float:
        """Return the payload size in bits, a multiple of 8."""
        return 8.0 * _length(int(histogram.sum()), _width(histogram.size))

    def encode(self, symbols: Symbols, table: bytes, alphabet: int) -> bytes:
        """Pack ``symbols``, shape ``(n,)``, least significant bit first."""
        width = _width(alphabet)
        if width in (0, 8):
            return symbols.tobytes() if width else b""
        # Eight symbols of `width` bits fill `width` bytes: one little-endian number.
        eights = np.zeros((-(-symbols.size // 8), 8), np.uint8)
        eights.ravel()[: symbols.size] = symbols
        packed = np.zeros(len(eights), "<u8")
        for place in range(8):
            packed |= eights[:, place].astype("<u8") << np.uint64(width * place)
        octets = packed.view(np.uint8).reshape(-1, 8)[:, :width]
        return octets.tobytes()[: _length(symbols.size, width)]

    def decode(self, payload: memoryview, count: int, table: bytes, alphabet: int, *, threads: int = 1) -> Symbols:
        """Unpack ``count`` symbols; ``threads`` is ignored."""
        width = _width(alphabet)
        data = np.frombuffer(payload, np.uint8)
        if len(table) or data.size != _length(count, width):
            raise ArtifactError(
                f"a raw payload of {count} symbols of {width} bits has {data.size} bytes and a table of {len(table)}; "
                f"it should have {_length(count, width)} and none"
            )
        if width == 0:
            return np.zeros(count, np.uint8)
        eights = -(-count // 8)
        octets = np.zeros((eights, 8), np.uint8)
        padded = np.zeros(eights * width, np.uint8)
        padded[: data.size] = data
        octets[:, :width] = padded.reshape(eights, width)
        packed = octets.view("<u8").ravel()
        symbols = np.empty((eights, 8), np.uint8)
        for place in range(8):
            symbols[:, place] = packed >> np.uint64(width * place) & np.uint64((1 << width) - 1)
        if symbols.ravel()[count:].any():
            raise ArtifactError("a raw payload has bits set after its last symbol")
        result = symbols.ravel()[:count]
        if result.size and int(result.max()) >= alphabet:
            raise ArtifactError(f"a raw payload has symbol {int(result.max())} of an alphabet of {alphabet}")
        return result


def _width(alphabet: int) -> int:
    return (alphabet - 1).bit_length()


def _length(count: int, width: int) -> int:
    return (count * width + 7) // 8
