"""Levels: the small integers, one per symbol, that rANS and Huffman tables consist of, and their compact encoding.

The level of an absent symbol is 0. Other levels are predicted from their neighbours and the difference is written in
an exponential Golomb code; runs of absent symbols are run-length coded (``docs/format.md``, section 4.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import ArtifactError

MAX_LEVEL = 4095
MAX_BYTES = 1024
PREDICTORS = 2
ORDERS = 8

Levels = NDArray[np.int64]


def golomb_bits(order: int, value: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the exponential Golomb code length in bits, ``2 floor(log2(value + 2^order)) - order + 1``."""
    exponents: NDArray[np.int64] = np.frexp(value + (1 << order))[1].astype(np.int64) - 1
    return 2 * exponents - order + 1


_BITS = np.stack([golomb_bits(order, np.arange(2 * MAX_LEVEL + 1)) for order in range(ORDERS)])


def predict(levels: Levels) -> Levels:
    """Return each predictor's prediction of ``levels (..., alphabet)``, shape ``(PREDICTORS, ..., alphabet)``.

    Predictor 0 predicts the previous level (0 for the first). Predictor 1 does so in the first half and mirrors the
    first half in the second, because weight distributions are nearly symmetric.

    Example:
        >>> predict(np.array([1, 5, 5, 1])).tolist()
        [[0, 1, 5, 5], [0, 1, 5, 1]]
    """
    before = np.zeros_like(levels)
    before[..., 1:] = levels[..., :-1]
    mirror = before.copy()
    half = (levels.shape[-1] + 1) // 2
    mirror[..., half:] = levels[..., ::-1][..., half:]
    return np.stack([before, mirror])


def fold(levels: Levels, expected: Levels) -> Levels:
    """Map ``levels - expected`` to numbers from 0 up: 0, +1, -1, +2, ... while both signs are possible, then the level.

    Example:
        >>> fold(np.array([5, 6, 4, 0, 20]), np.array([5, 5, 5, 5, 5])).tolist()
        [0, 1, 2, 10, 20]
    """
    difference = levels - expected
    near = np.where(difference > 0, 2 * difference - 1, -2 * difference)
    return np.where(np.abs(difference) <= expected, near, levels)


def unfold(number: int, expected: int) -> int:
    """Invert :func:`fold` for one number."""
    if number > 2 * expected:
        return number
    return expected + ((number + 1) // 2 if number % 2 else -(number // 2))


def best_code(levels: Levels) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the least size in bits of each row of levels, and the predictor and Golomb order that reach it.

    The rows of ``levels (rows, alphabet)`` must have the same symbols present.
    """
    starts, lengths = _absent_runs(levels[0])
    written = levels[0] > 0
    written[starts] = True
    numbers = fold(levels, predict(levels))[..., written]
    bits = np.stack([_BITS[order][numbers].sum(-1) for order in range(ORDERS)], 1) + _BITS[0][lengths - 1].sum()
    flat = bits.reshape(PREDICTORS * ORDERS, -1)
    choice = flat.argmin(0)
    return flat.min(0), choice // ORDERS, choice % ORDERS


def write_levels(levels: Levels, tag: int) -> bytes:
    """Encode ``levels``, shape ``(alphabet,)``, and the caller's ``tag``, 0 to 7."""
    predictor, order = (int(choice[0]) for choice in best_code(levels[None])[1:])
    numbers = fold(levels, predict(levels)[predictor]).tolist()
    runs = dict(zip(*(each.tolist() for each in _absent_runs(levels)), strict=True))
    written: list[tuple[int, int]] = []
    symbol = 0
    while symbol < levels.size:
        written.append((numbers[symbol], order))
        if symbol in runs:
            written.append((runs[symbol] - 1, 0))
        symbol += runs.get(symbol, 1)
    return bytes([tag | order << 3 | predictor << 6]) + _golomb(written)


def read_levels(table: bytes, alphabet: int) -> tuple[int, Levels]:
    """Decode the tag and the levels, shape ``(alphabet,)``, from the output of :func:`write_levels`.

    Raises:
        ArtifactError: the bytes are not a table, or encode its levels in a non-canonical way.
    """
    if not 1 <= len(table) <= MAX_BYTES:
        raise ArtifactError(f"a coding table of {len(table)} bytes; tables have 1 to {MAX_BYTES}")
    tag, order, predictor = table[0] & 7, table[0] >> 3 & 7, table[0] >> 6
    if predictor >= PREDICTORS:
        raise ArtifactError(f"a coding table asks for predictor {predictor}; there are {PREDICTORS}")
    reader = _Reader(table[1:])
    levels = [0] * alphabet
    half = (alphabet + 1) // 2
    symbol = 0
    after_run = False
    while symbol < alphabet:
        expected = alphabet - 1 - symbol if predictor and symbol >= half else symbol - 1  # levels[-1] is 0 at first
        level = unfold(reader.golomb(order), levels[expected])
        if level > MAX_LEVEL:
            raise ArtifactError(f"a coding table has level {level} for symbol {symbol}; the largest is {MAX_LEVEL}")
        levels[symbol] = level
        symbol += 1
        if level == 0:
            if after_run:
                raise ArtifactError(f"a coding table splits a run of absent symbols at symbol {symbol - 1}")
            symbol += reader.golomb(0)
        after_run = level == 0
    if symbol > alphabet:
        raise ArtifactError(f"a coding table leaves out symbols up to {symbol} of an alphabet of {alphabet}")
    if not any(levels):
        raise ArtifactError("a coding table has no symbols")
    reader.finish()
    return tag, np.array(levels, np.int64)


def _absent_runs(levels: Levels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the starts and lengths of the runs of zeros."""
    edges = np.diff(np.concatenate([[0], levels == 0, [0]]).astype(np.int8))
    starts = np.flatnonzero(edges == 1)
    return starts, np.flatnonzero(edges == -1) - starts


def _golomb(numbers: list[tuple[int, int]]) -> bytes:
    """Encode pairs of a number and its order, least significant bit first.

    The code is ``e - order`` zeros, a one and the ``e`` lowest bits of ``v = number + 2^order``, e = floor(log2 v).
    """
    bits = size = 0
    for number, order in numbers:
        shifted = number + (1 << order)
        exponent = shifted.bit_length() - 1
        low = shifted - (1 << exponent)
        bits |= (1 | low << 1) << (size + exponent - order)
        size += 2 * exponent - order + 1
    return bits.to_bytes((size + 7) // 8, "little")


class _Reader:
    """The inverse of :func:`_golomb`."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def golomb(self, order: int) -> int:
        zeros = (self._bits & -self._bits).bit_length() - 1
        exponent = zeros + order
        size = zeros + 1 + exponent
        if zeros < 0 or size > self._left or exponent > 16:
            raise ArtifactError("a coding table ends before its last symbol")
        low = self._bits >> (zeros + 1) & ((1 << exponent) - 1)
        self._bits >>= size
        self._left -= size
        return (1 << exponent) + low - (1 << order)

    def finish(self) -> None:
        if self._left >= 8 or self._bits:
            raise ArtifactError(f"a coding table has {self._left} bits after its last symbol")
