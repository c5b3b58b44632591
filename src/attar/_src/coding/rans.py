"""rANS coder (the default): asymmetric numeral systems, within a fraction of a percent of the entropy."""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import LANES, LOWEST, Bytes, Coder, Status, Symbols
from attar._src.coding.chunks import CHUNK, decode_chunks, encode_chunks
from attar._src.coding.fallback import Step, pop_rans
from attar._src.coding.kernels import decoder, encode_rans
from attar._src.coding.tables import Frequencies, best_table, cross_entropy, frequencies

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
        decode = decoder(self.name, table, alphabet) or _model(table, alphabet).decode
        return decode_chunks(payload, count, decode, threads=threads)


class _Model:
    """Coder of one chunk with a given table.

    Attributes:
        known: ``(alphabet,)``, symbols with a positive frequency.
        rare: ``(alphabet,)``, symbols that are coded in two steps.
        in_first: ``(alphabet,)``, the symbol coded in the first step: the symbol itself, or the stand-in if it is rare.
        entries: ``start << 16 | frequency`` in both steps, ``(2, 256)``.
    """

    def __init__(self, precision: int, freqs: Frequencies) -> None:
        self.precision, self.freqs = precision, freqs
        self.known: NDArray[np.bool_] = freqs.sum(0) > 0
        self.rare = freqs[1] > 0
        self.in_first = np.arange(self.known.size, dtype=np.uint8)
        self.in_first[self.rare] = int(self.rare.argmax())
        self.entries = np.zeros((2, 256), np.uint32)
        self.entries[:, : self.known.size] = (np.cumsum(freqs, 1) - freqs) << 16 | freqs

    def encode(self, symbols: Symbols) -> bytes:
        rare = symbols[self.rare[symbols]] if self.rare.any() else symbols[:0]
        first = self.in_first[symbols] if rare.size else symbols
        if symbols.size < SMALL:
            return encode_rans(first, rare, self.entries, self.precision, 1)
        chunk = encode_rans(first, rare, self.entries, self.precision, LANES)
        if len(chunk) >= WORTH_LANES:
            return bytes([LANES]) + chunk
        return bytes([1]) + encode_rans(first, rare, self.entries, self.precision, 1)

    @functools.cached_property
    def _steps(self) -> tuple[Step, Step]:
        return Step.of(self.freqs[0]), Step.of(self.freqs[1])

    def decode(self, chunk: Bytes, symbols: Symbols) -> Status:
        """Fill ``symbols`` without the extension."""
        lanes = 1
        if symbols.size >= SMALL:
            if not chunk.size or chunk[0] not in (1, LANES):
                return Status.BAD_LANES
            lanes, chunk = int(chunk[0]), chunk[1:]
        # A lone state is stored without leading zero bytes; if words follow it takes 3 or 4, told apart by parity.
        alone = chunk.size if chunk.size < 4 else 4 - chunk.size % 2
        size = 4 * lanes if lanes > 1 else alone
        if chunk.size < size or (chunk.size - size) % 2:
            return Status.BAD_LENGTH
        head = chunk[:size].tobytes()
        states = [int.from_bytes(head[at : at + 4], "little") for at in range(0, 4 * lanes, 4)]
        if min(states) < LOWEST if lanes > 1 else head[-1:] == b"\0":
            return Status.BAD_STATE
        return pop_rans(states, chunk[size:].view("<u2"), *self._steps, symbols)


@functools.lru_cache(maxsize=64)
def _model(table: bytes, alphabet: int) -> _Model:
    return _Model(*frequencies(table, alphabet))
