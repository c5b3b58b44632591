"""Huffman coder: canonical prefix codes of at most 15 bits."""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Bytes, Coder, Status, Symbols
from attar._src.coding.chunks import CHUNK, decode_chunks, encode_chunks
from attar._src.coding.fallback import walk_huffman
from attar._src.coding.kernels import decoder, encode_huffman
from attar._src.coding.levels import Levels, read_levels, write_levels
from attar._src.core.errors import ArtifactError

LONGEST = 15


class Huffman(Coder):
    """The optimal prefix code (Huffman 1952): at least one bit per symbol, zero if only one symbol occurs.

    It comes within a few percent of the entropy for codes of 4 bits and more, and stays far above it if one symbol
    dominates: prefer rANS there. Use it to compare with papers that report Huffman bits, or for decoders without
    multiplication.
    """

    name: ClassVar[str] = "huffman"

    def table(self, histogram: NDArray[np.int64]) -> bytes:
        if not histogram.any():
            return b""
        table = write_levels((code_lengths(histogram) + 1) * (histogram > 0), 0)
        return b"" if self.cost(histogram, b"") <= self.cost(histogram, table) + 8 * len(table) else table

    def cost(self, histogram: NDArray[np.int64], table: bytes) -> float:
        levels = _levels(table, histogram.size)
        if histogram[levels == 0].any():
            return float("inf")
        chunks = max(1, -(-int(histogram.sum()) // CHUNK))
        bits = int((histogram * (levels - 1)).sum())
        return float(bits + (4 * chunks if bits else 0) + 24 * (chunks - 1))

    def encode(self, symbols: Symbols, table: bytes, alphabet: int) -> bytes:
        levels = _levels(table, alphabet)
        codes = _codes(levels)
        return encode_chunks(symbols, levels > 0, lambda part: encode_huffman(part, codes))

    def decode(self, payload: memoryview, count: int, table: bytes, alphabet: int, *, threads: int = 1) -> Symbols:
        decode = decoder(self.name, table, alphabet) or functools.partial(_decode, *_lookup(table, alphabet))
        return decode_chunks(payload, count, decode, threads=threads)


def code_lengths(histogram: NDArray[np.int64], longest: int = LONGEST) -> NDArray[np.int64]:
    """Return the lengths in bits of the optimal prefix code of at most ``longest`` bits, ``(alphabet,)``; 0 if absent.

    Package-merge (Larmore and Hirschberg 1990): each of the n present symbols is a coin on each of ``longest`` levels.
    Sorted coins are paired into packages that join the coins of the next level; a symbol's length is the number of its
    coins among the ``2n - 2`` cheapest items of the last level, packages unpacked.

    Example:
        >>> code_lengths(np.array([5, 2, 1, 0])).tolist()
        [1, 2, 2, 0]
    """
    present = np.flatnonzero(histogram)
    present = present[np.argsort(histogram[present], kind="stable")]
    coins = histogram[present].astype(np.int64)
    level, own = coins, [np.ones(coins.size, bool)]
    for _ in range(longest - 1):
        packages = level[: level.size // 2 * 2].reshape(-1, 2).sum(1)
        both = np.concatenate([coins, packages])
        order = np.argsort(both, kind="stable")
        level = both[order]
        own.append(order < coins.size)
    sorted_lengths = np.zeros(coins.size, np.int64)
    take = 2 * coins.size - 2
    for mine in reversed(own):
        symbols = int(mine[:take].sum())
        sorted_lengths[:symbols] += 1
        take = 2 * (take - symbols)
    lengths = np.zeros(histogram.size, np.int64)
    lengths[present] = sorted_lengths
    return lengths


@functools.lru_cache(maxsize=1024)
def _levels(table: bytes, alphabet: int) -> Levels:
    """Return each symbol's code length + 1, 0 if absent; raise unless the code is complete."""
    if table:
        tag, levels = read_levels(table, alphabet)
    else:
        longest = (alphabet - 1).bit_length()
        tag, levels = 0, np.full(alphabet, longest + 1, np.int64)
        levels[2 * alphabet - (1 << longest) :] -= 1
    lengths = levels[levels > 0] - 1
    if tag or lengths.max() > LONGEST or (1 << (LONGEST - lengths)).sum() != 1 << LONGEST:
        raise ArtifactError("the lengths of a Huffman table do not form a complete code of at most 15 bits")
    levels.flags.writeable = False
    return levels


def _sorted_code(levels: Levels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the present symbols and their lengths in canonical order: by length, then by symbol."""
    present = np.flatnonzero(levels)
    present = present[np.argsort(levels[present], kind="stable")]
    return present, levels[present] - 1


def _reverse(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Reverse the lowest ``bits`` bits of each value."""
    places = np.arange(bits)
    result: NDArray[np.int64] = ((values[:, None] >> places & 1) << places[::-1]).sum(1)
    return result


def _codes(levels: Levels) -> NDArray[np.uint32]:
    """Return ``length << 16 | code`` of each symbol, the code's first bit lowest, ``(256,)``."""
    symbols, lengths = _sorted_code(levels)
    longest = int(lengths[-1])
    spans = 1 << (longest - lengths)
    codes = np.zeros(256, np.uint32)
    codes[symbols] = lengths << 16 | _reverse(np.cumsum(spans) - spans, longest)
    return codes


@functools.lru_cache(maxsize=64)
def _lookup(table: bytes, alphabet: int) -> tuple[NDArray[np.uint16], int]:
    """Return ``length << 8 | symbol`` for every value of the next ``longest`` bits, and ``longest``."""
    symbols, lengths = _sorted_code(_levels(table, alphabet))
    longest = int(lengths[-1])
    by_code = np.repeat(lengths << 8 | symbols, 1 << (longest - lengths))
    return by_code[_reverse(np.arange(1 << longest), longest)].astype(np.uint16), longest


def _decode(lookup: NDArray[np.uint16], longest: int, chunk: Bytes, symbols: Symbols) -> Status:
    return walk_huffman(chunk, lookup, longest, symbols)
