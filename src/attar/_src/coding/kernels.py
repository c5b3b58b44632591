"""Inner loops of the coders, compiled by numba on first use.

Every index is bounded: symbols by tables built from checked frequencies or lengths, read positions by padding after
the input that is longer than the loops can read between two checks.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint16]
DoubleWords = NDArray[np.uint32]

# Enough independent multiplication chains to keep a core busy; 16 and 32 lanes measured slower (registers spill).
LANES = 8


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function``, which must not call another compiled one; it releases the GIL and is cached on disk.

    If neither the package folder nor the user's cache is writable, each process compiles it again.
    """

    @functools.cache
    def build() -> Callable[P, R]:
        njit: Any = functools.partial(importlib.import_module("numba").njit, nogil=True, error_model="numpy")
        try:
            kernel: Callable[P, R] = njit(cache=True)(function)
        except RuntimeError:  # numba found no writable cache folder
            kernel = njit()(function)
        return kernel

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return build()(*args, **kwargs)

    return call


@compiled
def rans_encode(symbols: Bytes, entries: DoubleWords, precision: int, states: DoubleWords, words: Words) -> np.int64:
    """Push ``symbols`` on ``states``, last first, filling ``words`` from its end; return the index of the first word.

    Args:
        symbols: ``(n,)``, each with a positive frequency.
        entries: ``(alphabet,)``, ``start << 16 | frequency``.
        precision: k; frequencies sum to 2^k.
        states: ``(lanes,)``, lanes a power of two; symbol i goes to lane i mod lanes.
        words: ``(n + 1,)`` or more.
    """
    mask = states.size - 1
    shift = np.uint32(precision)
    headroom = np.uint64(32 - precision)
    position = words.size
    for i in range(symbols.size - 1, -1, -1):
        entry = entries[symbols[i]]
        frequency = entry & np.uint32(0xFFFF)
        state = states[i & mask]
        full = np.uint64(state) >= np.uint64(frequency) << headroom
        words[position - 1] = np.uint16(state & np.uint32(0xFFFF))
        position -= int(full)
        state = state >> np.uint32(16) if full else state
        quotient = np.uint32(state // frequency)
        states[i & mask] = np.uint32((quotient << shift) + (state - quotient * frequency) + (entry >> np.uint32(16)))
    return np.int64(position)


@compiled
def rans_decode_one(
    words: Words,
    position: int | np.int64,
    end: int,
    states: DoubleWords,
    slots: Bytes,
    entries: DoubleWords,
    symbols: Bytes,
) -> np.int64:
    """Fill ``symbols`` from the first of ``states``; return the index of the next word.

    The lane reads a word whenever its state is below 2^16 and words are left.

    Args:
        words: ``end`` words and at least one of padding.
        position: index of the next word, at most ``end``.
        slots: ``(2^k,)``, the symbol of each slot.
        entries: ``(alphabet,)``, ``start << 16 | frequency``.
    """
    mask = np.uint32(slots.size - 1)
    shift = np.uint32(np.log2(slots.size))
    limit = np.uint64(end)
    place = np.uint64(position)
    x = states[0]
    for i in range(symbols.size):
        slot = x & mask
        symbol = slots[slot]
        entry = entries[symbol]
        symbols[i] = symbol
        x = np.uint32((entry & np.uint32(0xFFFF)) * (x >> shift) + slot - (entry >> np.uint32(16)))
        low = (x < np.uint32(0x10000)) & (place < limit)
        refilled = np.uint32(x << np.uint32(16) | np.uint32(words[place]))
        x = refilled if low else x
        place += np.uint64(low)
    states[0] = x
    return np.int64(place)


@compiled
def rans_decode_lanes(
    words: Words, end: int, states: DoubleWords, slots: Bytes, entries: DoubleWords, symbols: Bytes
) -> np.int64:
    """Fill ``symbols`` from LANES lanes in turn; return the index of the next word, above ``end`` if words ran out.

    A lane reads a word whenever its state is below 2^16. ``words`` are ``end`` words and LANES of padding, ``states``
    has the shape ``(LANES,)``; other arguments as for :func:`rans_decode_one`.
    """
    mask = np.uint32(slots.size - 1)
    shift = np.uint32(np.log2(slots.size))
    limit = np.uint64(end)
    place = np.uint64(0)
    whole = symbols.size - symbols.size % LANES
    for start in range(0, whole, LANES):
        if place > limit:
            break
        for lane in range(LANES):
            x = states[lane]
            slot = x & mask
            symbol = slots[slot]
            entry = entries[symbol]
            symbols[start + lane] = symbol
            x = np.uint32((entry & np.uint32(0xFFFF)) * (x >> shift) + slot - (entry >> np.uint32(16)))
            low = x < np.uint32(0x10000)
            refilled = np.uint32(x << np.uint32(16) | np.uint32(words[place]))
            states[lane] = refilled if low else x
            place += np.uint64(low)
    if place <= limit:
        for lane in range(symbols.size - whole):
            x = states[lane]
            slot = x & mask
            symbol = slots[slot]
            entry = entries[symbol]
            symbols[whole + lane] = symbol
            x = np.uint32((entry & np.uint32(0xFFFF)) * (x >> shift) + slot - (entry >> np.uint32(16)))
            low = x < np.uint32(0x10000)
            refilled = np.uint32(x << np.uint32(16) | np.uint32(words[place]))
            states[lane] = refilled if low else x
            place += np.uint64(low)
    return np.int64(place)


@compiled
def huffman_encode(symbols: Bytes, codes: DoubleWords, words: DoubleWords) -> np.int64:
    """Write the codes of ``symbols`` into ``words``, least significant bit first; return the number of bits.

    Args:
        codes: ``(alphabet,)``, ``length << 16 | code``, the code's first bit lowest.
        words: room for 15 bits per symbol, plus one word.
    """
    pending = np.uint64(0)
    held = np.uint64(0)
    filled = 0
    for i in range(symbols.size):
        entry = codes[symbols[i]]
        pending |= np.uint64(entry & np.uint32(0xFFFF)) << held
        held += np.uint64(entry >> np.uint32(16))
        if held >= np.uint64(32):
            words[filled] = np.uint32(pending & np.uint64(0xFFFFFFFF))
            filled += 1
            pending >>= np.uint64(32)
            held -= np.uint64(32)
    words[filled] = np.uint32(pending & np.uint64(0xFFFFFFFF))
    return np.int64(32 * filled) + np.int64(held)


# Symbols between two checks of the read position: at most 32 * 15 bits = 15 double words.
HUFFMAN_RUN = 32
HUFFMAN_PADDING = 17


@compiled
def huffman_decode(words: DoubleWords, bits: int, lookup: Words, longest: int, symbols: Bytes) -> np.int64:
    """Fill ``symbols`` from ``words``; return the number of bits read, ``bits + 1`` if they ran out.

    Args:
        words: ``bits`` bits, least significant first, and HUFFMAN_PADDING more words.
        lookup: ``(2^longest,)``, ``length << 8 | symbol`` for the next ``longest`` bits, the first lowest.
        longest: length of the longest code, 0 to 15.
    """
    mask = np.uint64((1 << longest) - 1)
    end = np.uint64(bits)
    position = np.uint64(0)
    for start in range(0, symbols.size, HUFFMAN_RUN):
        if position > end:
            break
        for i in range(start, min(start + HUFFMAN_RUN, symbols.size)):
            word = position >> np.uint64(5)
            window = np.uint64(words[word]) | np.uint64(words[word + np.uint64(1)]) << np.uint64(32)
            entry = lookup[window >> (position & np.uint64(31)) & mask]
            symbols[i] = np.uint8(entry & np.uint16(0xFF))
            position += np.uint64(entry >> np.uint16(8))
    return np.int64(position) if position <= end else np.int64(bits + 1)
