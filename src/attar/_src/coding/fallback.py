"""The inner loops of the coders in Python, for machines on which the extension could not be built.

They are exact and slow. On one core, in million symbols a second: rANS 5 decoded and 3 encoded, Huffman 8 and 20; C has
several hundred. A net of 0.3 million weights opens 60 ms later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import LOWEST, Bytes, Status, Symbols


@dataclass(frozen=True)
class Step:
    """A coding step of rANS: the symbol of each of its 2^k slots, frequencies and starts of symbols."""

    slots: bytes
    frequencies: list[int]
    starts: list[int]

    @classmethod
    def of(cls, frequencies: NDArray[np.int64]) -> Step:
        """Lay out frequencies, shape ``(alphabet,)``."""
        slots = np.repeat(np.arange(frequencies.size, dtype=np.uint8), frequencies).tobytes()
        return cls(slots, frequencies.tolist(), (np.cumsum(frequencies) - frequencies).tolist())


def pop_rans(states: list[int], words: NDArray[np.uint16], first: Step, second: Step, symbols: Symbols) -> Status:
    """Fill ``symbols`` from lanes that begin with ``states``; ``second`` has no slots if no symbol is rare."""
    left = iter(words.tolist())
    popped, dry = _pop(states, left, first, symbols.size)
    if dry and len(states) > 1:
        return Status.BAD_SYMBOLS
    symbols[:] = popped
    if second.slots:
        rare = np.flatnonzero(symbols == second.slots[0])  # the stand-in is the lowest of the rare symbols
        symbols[rare] = _pop(states, left, second, rare.size, 1)[0]
    ended = all(state == (LOWEST if len(states) > 1 else 0) for state in states)
    return Status.OK if ended and next(left, None) is None else Status.BAD_SYMBOLS


def _pop(states: list[int], words: Iterator[int], step: Step, count: int, lanes: int = 0) -> tuple[Symbols, bool]:
    """Return ``count`` symbols popped off the first ``lanes`` lanes in turn, and whether a lane found no word left."""
    symbols = bytearray()
    append, dry = symbols.append, False
    slots, frequencies, starts = step.slots, step.frequencies, step.starts
    mask, k = len(slots) - 1, len(slots).bit_length() - 1
    for lane in islice(cycle(range(lanes or len(states))), count):
        state = states[lane]
        slot = state & mask
        symbol = slots[slot]
        state = frequencies[symbol] * (state >> k) + slot - starts[symbol]
        if state < LOWEST:
            word = next(words, -1)
            if word < 0:
                dry = True
            else:
                state = state << 16 | word
        states[lane] = state
        append(symbol)
    return np.frombuffer(symbols, np.uint8), dry


def push_rans(first: Symbols, rare: Symbols, entries: NDArray[np.uint32], k: int, lanes: int) -> bytes:
    """Do what :func:`kernels.encode_rans` does."""
    states = [LOWEST if lanes > 1 else 0] * lanes
    words: list[int] = []
    _push(rare, entries[1], k, states, 1, words)
    _push(first, entries[0], k, states, lanes, words)
    head = np.array(states, "<u4").tobytes()
    return (head if lanes > 1 else head.rstrip(b"\0")) + np.array(words[::-1], "<u2").tobytes()


def _push(
    symbols: Symbols, entries: NDArray[np.uint32], k: int, states: list[int], lanes: int, words: list[int]
) -> None:
    rows = list(zip((entries & 0xFFFF).tolist(), (entries >> 16).tolist(), strict=True))
    for at in range(symbols.size - 1, -1, -1):
        frequency, start = rows[symbols[at]]
        state = states[at % lanes]
        if state >= frequency << 32 - k:
            words.append(state & 0xFFFF)
            state >>= 16
        quotient, rest = divmod(state, frequency)
        states[at % lanes] = (quotient << k) + rest + start


def walk_huffman(chunk: Bytes, lookup: NDArray[np.uint16], longest: int, symbols: Symbols) -> Status:
    """Fill ``symbols`` from a chunk.

    The code at every bit of the chunk is looked up at once; the symbols are those at the bits where codes begin.

    Args:
        lookup: ``length << 8 | symbol`` for the next ``longest`` bits, the first lowest.
    """
    bits = 8 * chunk.size
    padded = np.concatenate([chunk, np.zeros(3, np.uint8)]).astype(np.uint32)
    windows = padded[:-2] | padded[1:-1] << 8 | padded[2:] << 16
    codes = lookup[windows[:, None] >> np.arange(8, dtype=np.uint32) & np.uint32((1 << longest) - 1)].ravel()
    lengths = (codes >> 8).astype(np.uint8).tobytes()
    at, starts = 0, []
    try:
        for _ in range(symbols.size):
            starts.append(at)
            at += lengths[at]
    except IndexError:
        return Status.BAD_SYMBOLS
    left = bits - at
    if not 0 <= left < 8 or (left and chunk[-1] >> (8 - left)):
        return Status.BAD_SYMBOLS
    symbols[:] = codes[starts] & 0xFF
    return Status.OK


def pack_huffman(symbols: Symbols, codes: NDArray[np.uint32]) -> bytes:
    """Do what :func:`kernels.encode_huffman` does."""
    own = codes[symbols]
    lengths = own >> 16
    ends = np.cumsum(lengths, dtype=np.int64)
    places = np.arange(ends[-1] if ends.size else 0) - np.repeat(ends - lengths, lengths)
    bits = np.repeat(own & 0xFFFF, lengths) >> places.astype(np.uint32) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()


def unpack_raw(data: Bytes, symbols: Symbols, width: int) -> bool:
    """Fill ``symbols`` from ``width`` bits each; return whether bits are set after the last."""
    eights = -(-symbols.size // 8)
    octets = np.zeros((eights, 8), np.uint8)
    octets[:, :width] = np.pad(data, (0, eights * width - data.size)).reshape(eights, width)
    packed = octets.view("<u8").ravel()
    unpacked = np.empty((eights, 8), np.uint8)
    for place in range(8):
        unpacked[:, place] = packed >> np.uint64(width * place) & np.uint64((1 << width) - 1)
    symbols[:], rest = np.split(unpacked.ravel(), [symbols.size])
    return bool(rest.any())
