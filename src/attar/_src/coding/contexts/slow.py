"""The context coder in Python, for machines on which the extension could not be built (``docs/format.md``, 4.5).

It decodes 0.1 million symbols a second, where C decodes 30: a net of 0.3 million weights opens three seconds later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate

import numpy as np

from attar._src.coding.base import LOWEST, Bytes, Status, Symbols
from attar._src.coding.contexts.table import ContextTable

_RECENT, _ONCE, _FULL = 64, 16, 60000


class _Counts:
    """Counts of the buckets and, behind them, their upper bounds, which follow from time to time."""

    def __init__(self, counts: list[int], bounds: list[int] | None = None) -> None:
        self.counts, self.total, self.left = counts, sum(counts), 1
        self.bounds = self._bounded() if bounds is None else bounds

    def begin(self) -> _Counts:
        """Return new counts with three symbols' worth of these."""
        ends = [*self.bounds, 32768]
        counts = [((end - begin) * 3 * _ONCE >> 15) + 1 for begin, end in zip([0, *ends], ends, strict=False)]
        return _Counts(counts, self.bounds)

    def count(self, bucket: int) -> None:
        self.counts[bucket] += _ONCE
        self.total += _ONCE
        self.left -= 1
        if self.left:
            return
        if self.total > _FULL:
            self.counts = [(count + 1) >> 1 for count in self.counts]
            self.total = sum(self.counts)
        self.bounds = self._bounded()
        self.left = min(max(self.total // (8 * _ONCE), 1), 128)

    def _bounded(self) -> list[int]:
        """Return the upper bound of each bucket but the last, of 2^15."""
        ratio = (32768 - len(self.counts) << 16) // self.total
        return [(running * ratio >> 16) + place for place, running in enumerate(accumulate(self.counts[:-1]), 1)]


class _Contexts:
    """What is known before each symbol, and the counts that predict it."""

    def __init__(self, table: ContextTable) -> None:
        self.table, self.values = table, list[int]()  # the values of the symbols so far
        self.all = _Counts([2] * table.buckets)
        self.counts = dict[tuple[int, ...], _Counts]()
        self.columns = [0] * table.row
        self.recent = self.column = self.position = self.rows = 0
        self.rate, self.negative = 1, False
        self.used: list[_Counts] = []

    def look(self) -> list[int]:
        """Return the upper bound of each bucket of the next symbol but the last, of 2^16."""
        table, values, i = self.table, self.values, len(self.values)
        left, second, up, up_right, up_left, above = (
            values[i - lag] if lag <= i else 0
            for lag in (1, 2, table.width, table.width - 1, table.width + 1, table.row)
        )
        v, w = table.values, table.sizes
        value = v[0] * left + v[1] * up + v[2] * up_right + v[3] * up_left
        size = (
            64
            * (
                w[0] * abs(left)
                + w[1] * abs(second)
                + w[2] * abs(up)
                + w[3] * (abs(up_right) + abs(up_left))
                + w[4] * abs(above)
            )
            + w[5] * self.recent
            + (w[6] * self.columns[self.column] >> 2)
        )
        self.negative = value < 0
        expected, shift = abs(value) << 6, table.shift
        level = (size >> shift + 1).bit_length()
        ratio = (2 * expected >= size + 16) + (expected >= size + 16) + (2 * expected >= 3 * size + 16)
        if table.period > 1:
            place = self.position, max(level - 2, 0) // 2
        else:
            sign = -1 if self.negative else 1
            place = max(-5, min(5, sign * left >> shift)), max(-5, min(5, sign * up >> shift))
        keys = (0, level, ratio), (1, *place), (2, min(abs(value) >> shift + 1, 31))
        self.used = [self.counts.get(key) or self.counts.setdefault(key, self.all.begin()) for key in keys]
        return [a + (b + c >> 1) for a, b, c in zip(*(counts.bounds for counts in self.used), strict=True)]

    def learn(self, bucket: int, value: int) -> None:
        for counts in (self.all, *self.used):
            counts.count(bucket)
        size = abs(value)
        self.values.append(value)
        self.recent += size - (abs(self.values[-_RECENT - 1]) if len(self.values) > _RECENT else 0)
        self.columns[self.column] += (size << 8) - self.columns[self.column] >> self.rate
        self.position = (self.position + 1) % self.table.period
        self.column = (self.column + 1) % self.table.row
        if not self.column:
            self.rows += 1
            self.rate = min((self.rows + 1).bit_length(), 5)


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
    contexts, apart = _Contexts(table), table.buckets - 1 if table.apart else -1
    for at in range(symbols.size):
        bounds = contexts.look()
        slot = state & 0xFFFF
        bucket = bisect_right(bounds, slot)
        first, last = bounds[bucket - 1] if bucket else 0, bounds[bucket] if bucket < len(bounds) else 1 << 16
        state = (last - first) * (state >> 16) + slot - first
        if state < LOWEST:
            state = _take(state, words)
        bits = 0 if bucket == apart else table.shift
        number = state & (1 << bits) - 1
        if bits:
            state >>= bits
            if state < LOWEST:
                state = _take(state, words)
        value = table.value(bucket, number)
        value = -value if contexts.negative else value
        if not 0 <= value + table.center < table.alphabet:
            return Status.BAD_SYMBOLS
        symbols[at] = value + table.center
        contexts.learn(bucket, value)
    return Status.BAD_SYMBOLS if state or next(words, None) is not None else Status.OK


def _take(state: int, words: Iterator[int]) -> int:
    word = next(words, -1)
    return state if word < 0 else state << 16 | word


def encode_context(symbols: Symbols, table: ContextTable) -> bytes:
    """Return the chunk of ``symbols``, shape ``(n,)``."""
    contexts, spans = _Contexts(table), list[tuple[int, int, int, int]]()
    for symbol in symbols.tolist():
        bounds, value = contexts.look(), symbol - table.center
        bucket, number, bits = table.place(-value if contexts.negative else value)
        first, last = bounds[bucket - 1] if bucket else 0, bounds[bucket] if bucket < len(bounds) else 1 << 16
        spans.append((first, last - first, number, bits))
        contexts.learn(bucket, value)
    state, words = 0, list[int]()
    for first, width, number, bits in reversed(spans):
        for limit, push in ((1 << 32 - bits, bits), (width << 16, 0)):
            if state >= limit:
                words.append(state & 0xFFFF)
                state >>= 16
            state = state << push | number if push else state
        state = (state // width << 16) + state % width + first
    return state.to_bytes(4, "little").rstrip(b"\0") + np.array(words[::-1], "<u2").tobytes()
