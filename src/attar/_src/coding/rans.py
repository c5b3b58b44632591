"""rANS coder (the default): asymmetric numeral systems, within a fraction of a percent of the entropy."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Coder, Symbols
from attar._src.coding.chunks import CHUNK, decode_chunks, encode_chunks
from attar._src.coding.kernels import LANES, Bytes, rans_decode_lanes, rans_decode_one, rans_encode
from attar._src.coding.tables import Frequencies, best_table, cross_entropy, frequencies
from attar._src.core.errors import ArtifactError

LOWEST = 1 << 16
# A chunk with fewer symbols has one lane and no byte for the number of lanes.
SMALL = 4096
# Each of several lanes wastes about three bytes: allow one byte in a thousand.
WORTH_LANES = 1000 * 3 * LANES


class Rans(Coder):
    """Range asymmetric numeral systems (J. Duda, arXiv:1311.2540): symbols of frequency f / 2^k take k - log2(f) bits.

    Encoding a symbol maps the state x to ``(x // f << k) + start + x % f``; 16-bit words are moved out to keep x below
    2^32. Large chunks interleave eight states (F. Giesen, arXiv:1402.3392) so that a core can overlap their steps.
    Prefer it unless symbols are nearly uniform (use raw) or the decoder has no multiplication (use Huffman).
    """

    name: ClassVar[str] = "rans"

    def table(self, histogram: NDArray[np.int64]) -> bytes:
        return best_table(histogram)

    def cost(self, histogram: NDArray[np.int64], table: bytes) -> float:
        precision, freqs = frequencies(table, histogram.size)
        bits = float(cross_entropy(histogram, freqs, np.int64(precision)))
        count = int(histogram.sum())
        chunks = max(1, -(-count // CHUNK))
        if bits / 8 >= WORTH_LANES * chunks:
            states = 8.0 * 3 * LANES
        else:  # the first symbol of a lane always takes k bits, and half of the last byte is lost on average
            states = max(0.0, precision - bits / count - 1) + 4 if bits else 0.0
        return bits + chunks * states + 8 * (chunks * (count >= SMALL) + 3 * (chunks - 1))

    def encode(self, symbols: Symbols, table: bytes, alphabet: int) -> bytes:
        model = _model(table, alphabet)
        return encode_chunks(symbols, model.known, model.encode)

    def decode(self, payload: memoryview, count: int, table: bytes, alphabet: int, *, threads: int = 1) -> Symbols:
        return decode_chunks(payload, count, _model(table, alphabet).decode, threads=threads)


class _Step:
    """The frequencies of one coding step, laid out for the inner loops (see ``kernels``)."""

    def __init__(self, freqs: NDArray[np.int64]) -> None:
        self.entries = ((np.cumsum(freqs) - freqs) << 16 | freqs).astype(np.uint32)
        self.slots = np.repeat(np.arange(freqs.size, dtype=np.uint8), freqs)


class _Model:
    """Coder of one chunk with a given table.

    Attributes:
        known: ``(alphabet,)``, symbols with a positive frequency.
        rare: ``(alphabet,)``, symbols that are coded in two steps.
        in_first: ``(alphabet,)``, the symbol coded in the first step: the symbol itself, or the stand-in if it is rare.
    """

    def __init__(self, precision: int, freqs: Frequencies) -> None:
        self.precision = precision
        self.known: NDArray[np.bool_] = freqs.sum(0) > 0
        self.rare = freqs[1] > 0
        self.in_first = np.arange(self.known.size, dtype=np.uint8)
        self.in_first[self.rare] = self.stand_in = int(self.rare.argmax())
        self.first, self.second = _Step(freqs[0]), _Step(freqs[1])

    def encode(self, symbols: Symbols) -> bytes:
        rare = symbols[self.rare[symbols]] if self.rare.any() else symbols[:0]
        first = self.in_first[symbols] if rare.size else symbols
        if symbols.size < SMALL:
            return self._push(first, rare, 1)
        chunk = self._push(first, rare, LANES)
        return bytes([LANES]) + chunk if len(chunk) >= WORTH_LANES else bytes([1]) + self._push(first, rare, 1)

    def _push(self, first: Symbols, rare: Symbols, lanes: int) -> bytes:
        """Return states and words; rANS is a stack, so the second step is pushed first."""
        states = np.full(lanes, _start(lanes), np.uint32)
        words = np.empty(first.size + rare.size + 1, np.uint16)
        begin = rans_encode(rare, self.second.entries, self.precision, states[:1], words)
        begin = rans_encode(first, self.first.entries, self.precision, states, words[:begin])
        head = states.astype("<u4").tobytes()
        return (head if lanes > 1 else head.rstrip(b"\0")) + words[begin:].astype("<u2").tobytes()

    def decode(self, chunk: Bytes, symbols: Symbols) -> None:
        states, words, end = _open(chunk, symbols.size)
        lanes = states.size
        if lanes > 1:
            place = rans_decode_lanes(words, end, states, self.first.slots, self.first.entries, symbols)
        else:
            place = rans_decode_one(words, 0, end, states, self.first.slots, self.first.entries, symbols)
        if place <= end and self.rare.any():
            where = np.flatnonzero(symbols == self.stand_in)
            which = np.empty(where.size, np.uint8)
            place = rans_decode_one(words, place, end, states, self.second.slots, self.second.entries, which)
            symbols[where] = which
        if place != end or (states != _start(lanes)).any():
            raise ArtifactError(f"a rANS chunk of {chunk.size} bytes does not hold {symbols.size} symbols of its table")


@functools.lru_cache(maxsize=64)
def _model(table: bytes, alphabet: int) -> _Model:
    return _Model(*frequencies(table, alphabet))


def _open(chunk: Bytes, symbols: int) -> tuple[NDArray[np.uint32], NDArray[np.uint16], int]:
    """Return the states of the lanes, the words, padded for the inner loops, and the number of words."""
    lanes = 1
    if symbols >= SMALL:
        if not chunk.size or chunk[0] not in (1, LANES):
            raise ArtifactError(f"a rANS chunk declares {chunk[:1].tolist()} lanes; it should have 1 or {LANES}")
        lanes, chunk = int(chunk[0]), chunk[1:]
    # A lone state is stored without leading zero bytes; if words follow it takes 3 or 4 bytes, told apart by parity.
    alone = chunk.size if chunk.size < 4 else 4 - chunk.size % 2
    size = 4 * lanes if lanes > 1 else alone
    end = (chunk.size - size) // 2
    if end < 0 or chunk.size != size + 2 * end:
        raise ArtifactError(f"a rANS chunk of {lanes} lanes cannot have {chunk.size} bytes")
    states: NDArray[np.uint32] = _numbers(chunk[:size], "<u4", lanes)
    if (states < LOWEST).any() if lanes > 1 else size and not chunk[size - 1]:
        raise ArtifactError(f"a rANS chunk of {lanes} lanes begins with states {states.tolist()}, below the lowest")
    return states, _numbers(chunk[size:], "<u2", end + LANES), end


def _start(lanes: int) -> int:
    """Return the initial state; one of several lanes must tell from its state alone whether a word was moved out."""
    return LOWEST if lanes > 1 else 0


def _numbers(data: Bytes, kind: str, size: int) -> NDArray[Any]:
    """Return the little-endian numbers of ``data`` in native byte order, zero-padded to ``size``."""
    numbers = np.zeros(size, kind)
    numbers.view(np.uint8)[: data.size] = data
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
