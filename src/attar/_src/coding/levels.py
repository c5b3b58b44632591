"""Small whole numbers, one for each symbol of an alphabet, in few bytes: what tables of rANS and Huffman are made of.

A level is 0 where the symbol is absent. Present levels are predicted from their neighbours and the difference written
in an exponential Golomb code; runs of absent symbols are counted (``docs/format.md``, section 4.2).
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
    """Return the bits of ``value`` in the exponential Golomb code of ``order``: 2 floor(log2(v + 2^r)) - r + 1."""
    exponents: NDArray[np.int64] = np.frexp(value + (1 << order))[1].astype(np.int64) - 1
    return 2 * exponents - order + 1


_BITS = np.stack([golomb_bits(order, np.arange(2 * MAX_LEVEL + 1)) for order in range(ORDERS)])


def predict(levels: Levels) -> Levels:
    """Return what each predictor expects of levels of shape ``(..., alphabet)``: ``(PREDICTORS, ..., alphabet)``.

    Predictor 0 expects the level before (0 before the first); predictor 1 does so in the first half and expects the
    mirror image of the first half in the second, as the weights of a network are nearly symmetric.
    """
    before = np.zeros_like(levels)
    before[..., 1:] = levels[..., :-1]
    mirror = before.copy()
    half = (levels.shape[-1] + 1) // 2
    mirror[..., half:] = levels[..., ::-1][..., half:]
    return np.stack([before, mirror])


def fold(levels: Levels, expected: Levels) -> Levels:
    """Return the differences as numbers from 0 up: 0, +1, -1, +2, ... while both signs are possible, then the level."""
    difference = levels - expected
    near = np.where(difference > 0, 2 * difference - 1, -2 * difference)
    return np.where(np.abs(difference) <= expected, near, levels)


def unfold(number: int, expected: int) -> int:
    """Return the level that :func:`fold` made ``number`` of."""
    if number > 2 * expected:
        return number
    return expected + ((number + 1) // 2 if number % 2 else -(number // 2))


def best_code(levels: Levels) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the fewest bits that rows of levels take, with the predictor and the order that take them.

    Args:
        levels: ``(rows, alphabet)``, with the same symbols present in every row.
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
    """Return the bytes of ``levels``, shape ``(alphabet,)``, and of ``tag``, a number from 0 to 7 of the caller's."""
    _, (predictor,), (order,) = best_code(levels[None])
    numbers = fold(levels, predict(levels)[predictor]).tolist()
    runs = dict(zip(*(each.tolist() for each in _absent_runs(levels)), strict=True))
    writer = _Writer()
    symbol = 0
    while symbol < levels.size:
        writer.golomb(numbers[symbol], int(order))
        if symbol in runs:
            writer.golomb(runs[symbol] - 1, 0)
        symbol += runs.get(symbol, 1)
    return bytes([tag | int(order) << 3 | int(predictor) << 6]) + writer.bytes()


def read_levels(table: bytes, alphabet: int) -> tuple[int, Levels]:
    """Return the tag and the levels, shape ``(alphabet,)``, that :func:`write_levels` made ``table`` of.

    Raises:
        ArtifactError: the bytes are not a table, or not the one way to write its levels.
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
        if predictor and symbol >= half:
            expected = levels[alphabet - 1 - symbol]
        else:
            expected = levels[symbol - 1] if symbol else 0
        level = unfold(reader.golomb(order), expected)
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
    """Return where runs of zeros start and how long each is."""
    edges = np.diff(np.concatenate([[0], levels == 0, [0]]).astype(np.int8))
    starts = np.flatnonzero(edges == 1)
    return starts, np.flatnonzero(edges == -1) - starts


class _Writer:
    """Bits, least significant first."""

    def __init__(self) -> None:
        self._bits = 0
        self._count = 0

    def golomb(self, value: int, order: int) -> None:
        """Append as many zeros as value + 2^order has bits above the lowest order + 1, a one, and the bits below."""
        shifted = value + (1 << order)
        exponent = shifted.bit_length() - 1
        low = shifted - (1 << exponent)
        self._bits |= (1 | low << 1) << (self._count + exponent - order)
        self._count += 2 * exponent - order + 1

    def bytes(self) -> bytes:
        return self._bits.to_bytes((self._count + 7) // 8, "little")


class _Reader:
    """The inverse of :class:`_Writer`."""

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
