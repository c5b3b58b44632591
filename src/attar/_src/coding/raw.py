"""Raw coder: bit packing, the least significant bit first."""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Bytes, Coder, Status, Symbols
from attar._src.coding.fallback import unpack_raw
from attar._src.coding.kernels import decoder
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
        symbols = np.empty(count, np.uint8)
        decode = decoder(self.name, b"", alphabet) or functools.partial(_decode, alphabet)
        status = decode(data, symbols)
        if status == Status.BAD_PADDING:
            raise ArtifactError("a raw payload has bits set after its last symbol")
        if status:
            raise ArtifactError(f"a raw payload has symbol {symbols.max()} of an alphabet of {alphabet}")
        return symbols


def _decode(alphabet: int, data: Bytes, symbols: Symbols) -> Status:
    """Fill ``symbols`` without the extension."""
    padding = unpack_raw(data, symbols, _width(alphabet))
    if int(symbols.max(initial=0)) >= alphabet:
        return Status.BAD_SYMBOLS
    return Status.BAD_PADDING if padding else Status.OK


def _width(alphabet: int) -> int:
    return (alphabet - 1).bit_length()


def _length(count: int, width: int) -> int:
    return (count * width + 7) // 8
