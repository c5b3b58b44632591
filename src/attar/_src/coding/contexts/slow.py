"""The context coder in Python, for machines on which the extension could not be built (``docs/format.md``, 4.5).

It decodes 0.3 million symbols a second, where C decodes 30: a net of 0.3 million weights opens a second later. A file
that would take very much longer is refused (``Limits.slow_symbols``).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import accumulate, pairwise

import numpy as np

from attar._src.coding.base import LOWEST, Bytes, Status, Symbols
from attar._src.coding.contexts.table import ContextTable

_RECENT, _ONCE, _FULL = 64, 16, 60000


class _Counts:
    """Counts of the buckets and, behind them, their upper bounds, which follow from time to time.

    ``bounds`` are those of each bucket but the last, of 2^15, and that of the last, 2^15, behind them.
    """

    __slots__ = ("bounds", "counts", "left", "total")

    def __init__(self, counts: list[int], bounds: list[int] | None = None) -> None:
        self.counts, self.total, self.left = counts, sum(counts), 1
        self.bounds = self._bounded() if bounds is None else bounds

    def begin(self) -> _Counts:
        """Return new counts with three symbols' worth of these."""
        counts = [((end - begin) * 3 * _ONCE >> 15) + 1 for begin, end in pairwise((0, *self.bounds))]
        return _Counts(counts, self.bounds)

    def follow(self) -> None:
        """Have the bounds follow the counts."""
        self.total = sum(self.counts)
        if self.total > _FULL:
            self.counts = [(count + 1) >> 1 for count in self.counts]
            self.total = sum(self.counts)
        self.bounds = self._bounded()
        self.left = min(max(self.total // (8 * _ONCE), 1), 128)

    def _bounded(self) -> list[int]:
        ratio = (32768 - len(self.counts) << 16) // self.total
        bounds = [(running * ratio >> 16) + place for place, running in enumerate(accumulate(self.counts), 1)]
        bounds[-1] = 32768
        return bounds


#: The bounds of three counts, and whether buckets count downwards.
_Sight = tuple[list[int], list[int], list[int], bool]


def _contexts(table: ContextTable) -> Generator[_Sight, tuple[int, int], None]:
    """Yield what is known before each symbol, and get the bucket and the value of each.

    All of it is in local variables, which are twice as fast as attributes.
    """
    row, width, period, shift = table.row, table.width, table.period, table.shift
    v0, v1, v2, v3 = table.values
    w0, w1, w2, w3, w4, w5, w6 = table.sizes
    before = max(row, width + 1, _RECENT + 1)
    values, sizes = [0] * before, [0] * before  # of the symbols so far, behind as many zeros as are looked back to
    columns, recent, column, position, line, rate = [0] * row, 0, 0, 0, 0, 1
    every = _Counts([2] * table.buckets)
    means, places, nears = dict[int, _Counts](), dict[tuple[int, int], _Counts](), dict[int, _Counts]()
    while True:
        left, up, up_right, up_left = values[-1], values[-width], values[1 - width], values[-1 - width]
        value = v0 * left + v1 * up + v2 * up_right + v3 * up_left
        size = (
            64
            * (
                w0 * sizes[-1]
                + w1 * sizes[-2]
                + w2 * sizes[-width]
                + w3 * (sizes[1 - width] + sizes[-1 - width])
                + w4 * sizes[-row]
            )
            + w5 * recent
            + (w6 * columns[column] >> 2)
        )
        negative = value < 0
        if negative:
            value, left, up = -value, -left, -up
        twice, level = value << 7, (size >> shift + 1).bit_length()
        ratio = (twice >= size + 16) + (twice >= 2 * size + 32) + (twice >= 3 * size + 16)
        if period > 1:
            place = position, level - 2 >> 1 if level > 2 else 0
        else:
            place = max(-5, min(5, left >> shift)), max(-5, min(5, up >> shift))
        near = min(value >> shift + 1, 31)
        mean_counts = means.get(4 * level + ratio) or means.setdefault(4 * level + ratio, every.begin())
        place_counts = places.get(place) or places.setdefault(place, every.begin())
        near_counts = nears.get(near) or nears.setdefault(near, every.begin())
        bucket, value = yield mean_counts.bounds, place_counts.bounds, near_counts.bounds, negative
        for counts in (every, mean_counts, place_counts, near_counts):
            counts.counts[bucket] += _ONCE
            counts.left -= 1
            if not counts.left:
                counts.follow()
        size = value if value > 0 else -value
        recent += size - sizes[-_RECENT]
        values.append(value)
        sizes.append(size)
        columns[column] += (size << 8) - columns[column] >> rate
        position += 1
        if position == period:
            position = 0
        column += 1
        if column == row:
            column = 0
            line += 1
            rate = min((line + 1).bit_length(), 5)


def context_decoder(table: bytes, alphabet: int) -> Callable[[Bytes, Symbols], Status]:
    """Return a function that fills symbols from a chunk.

    Raises:
        ArtifactError: the table is malformed.
    """
    return partial(_decode, ContextTable.read(table, alphabet))


def _decode(table: ContextTable, chunk: Bytes, symbols: Symbols) -> Status:
    size = chunk.size if chunk.size < 4 else 4 - chunk.size % 2
    head = chunk[:size].tobytes()
    if head[-1:] == b"\0":
        return Status.BAD_STATE
    state, words = int.from_bytes(head, "little"), iter(chunk[size:].view("<u2").tolist())
    last, shift, mask, center, alphabet = (
        table.buckets - 1,
        table.shift,
        (1 << table.shift) - 1,
        table.center,
        table.alphabet,
    )
    apart = last if table.apart else -1
    values = [table.value(bucket, number) for bucket in range(last + 1) for number in range(1 << shift)]
    decoded, contexts = bytearray(), _contexts(table)
    means, places, nears, negative = next(contexts)
    for _ in range(symbols.size):
        slot = state & 0xFFFF
        bucket, above, first = 0, last, 0
        while bucket < above:  # the first bucket whose upper bound is above the slot
            middle = bucket + above >> 1
            bound = means[middle] + (places[middle] + nears[middle] >> 1)
            if bound <= slot:
                bucket, first = middle + 1, bound
            else:
                above = middle
        end = means[bucket] + (places[bucket] + nears[bucket] >> 1)
        state = (end - first) * (state >> 16) + slot - first
        if state < LOWEST:
            state = _take(state, words)
        number = 0
        if shift and bucket != apart:
            number = state & mask
            state >>= shift
            if state < LOWEST:
                state = _take(state, words)
        value = values[bucket << shift | number]
        if negative:
            value = -value
        symbol = value + center
        if not 0 <= symbol < alphabet:
            return Status.BAD_SYMBOLS
        decoded.append(symbol)
        means, places, nears, negative = contexts.send((bucket, value))
    symbols[:] = np.frombuffer(decoded, np.uint8)
    return Status.BAD_SYMBOLS if state or next(words, None) is not None else Status.OK


def _take(state: int, words: Iterator[int]) -> int:
    word = next(words, -1)
    return state if word < 0 else state << 16 | word


def encode_context(symbols: Symbols, table: ContextTable) -> bytes:
    """Return the chunk of ``symbols``, shape ``(n,)``."""
    contexts, spans = _contexts(table), list[tuple[int, int, int, int]]()
    means, places, nears, negative = next(contexts)
    for symbol in symbols.tolist():
        value = symbol - table.center
        bucket, number, bits = table.place(-value if negative else value)
        first, last = (means[at] + (places[at] + nears[at] >> 1) if at >= 0 else 0 for at in (bucket - 1, bucket))
        spans.append((first, last - first, number, bits))
        means, places, nears, negative = contexts.send((bucket, value))
    state, words = 0, list[int]()
    for first, width, number, bits in reversed(spans):
        for limit, push in ((1 << 32 - bits, bits), (width << 16, 0)):
            if state >= limit:
                words.append(state & 0xFFFF)
                state >>= 16
            state = state << push | number if push else state
        state = (state // width << 16) + state % width + first
    return state.to_bytes(4, "little").rstrip(b"\0") + np.array(words[::-1], "<u2").tobytes()
