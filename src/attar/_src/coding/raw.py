"""Raw coder: bit packing, the least significant bit first."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Coder, Symbols
from attar._src.core.errors import ArtifactError


class Raw(Coder):
    """Bit packing without a table: ``ceil(log2(alphabet))`` bits per symbol (``docs/format.md``, section 4.1).

    Use it for nearly uniform symbols, and as the baseline of the other coders.
    """

    name: ClassVar[str] = "raw"

    def table(self, histogram: NDArray[np.int64]) -> bytes:
        return b""

    def cost(self, histogram: NDArray[np.int64], table: bytes) -> float:
        return 8.0 * _length(int(histogram.sum()), _width(histogram.size))

    def encode(self, symbols: Symbols, table: bytes, alphabet: int) -> bytes:
        width = _width(alphabet)
        if width in (0, 8):
            return symbols.tobytes() if width else b""
        # Eight symbols of `width` bits fill `width` bytes: one little-endian number.
        eights = np.pad(symbols, (0, -symbols.size % 8)).reshape(-1, 8)
        packed = np.zeros(len(eights), "<u8")
        for place in range(8):
            packed |= eights[:, place].astype("<u8") << np.uint64(width * place)
        octets = packed.view(np.uint8).reshape(-1, 8)[:, :width]
        return octets.tobytes()[: _length(symbols.size, width)]

    def decode(self, payload: memoryview, count: int, table: bytes, alphabet: int, *, threads: int = 1) -> Symbols:
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
        octets[:, :width] = np.pad(data, (0, eights * width - data.size)).reshape(eights, width)
        packed = octets.view("<u8").ravel()
        unpacked = np.empty((eights, 8), np.uint8)
        for place in range(8):
            unpacked[:, place] = packed >> np.uint64(width * place) & np.uint64((1 << width) - 1)
        symbols, rest = np.split(unpacked.ravel(), [count])
        if rest.any():
            raise ArtifactError("a raw payload has bits set after its last symbol")
        if (largest := int(symbols.max(initial=0))) >= alphabet:
            raise ArtifactError(f"a raw payload has symbol {largest} of an alphabet of {alphabet}")
        return symbols


def _width(alphabet: int) -> int:
    return (alphabet - 1).bit_length()


def _length(count: int, width: int) -> int:
    return (count * width + 7) // 8
