"""Tables of rANS: how often each symbol is expected, as integers that sum to 2^k, chosen to cost least as a whole.

A table holds a level q for each symbol, and q^2 is its weight: squares, because equal errors of sqrt(p) cost equal
numbers of bits (the information metric of a multinomial is flat in sqrt(p)): no bit of one level is worth more than one
of another. Frequencies follow from the weights by integer arithmetic (``docs/format.md``, section 4.3). Symbols rarer
than one in 2^k are coded in two steps: *one of the rare*, then which; a hundred of them would otherwise hold a hundred
of the 2^k slots.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.levels import MAX_LEVEL, Levels, best_code, read_levels, write_levels

MIN_PRECISION = 8
MAX_PRECISION = 15
UNIFORM_PRECISION = 9
# The least precision that many symbols are given: fewer slots make more of them rare, and slow in their second step.
MANY, MIN_PRECISION_OF_MANY = 4096, 11
# Rounding inside a 32-bit state costs this share of the payload at k = 15 (measured), a quarter of it at each k less.
STATE_LOSS = 3e-4

Frequencies = NDArray[np.int64]


def frequencies(table: bytes, alphabet: int) -> tuple[int, Frequencies]:
    """Return the precision k, 8 to 15, and the frequencies of the first step and of the second, ``(2, alphabet)``.

    The first row sums to 2^k; the second, too, or is all zero where no symbol is rare. Rare symbols have a second
    frequency, and only the first of them has one in the first row: it stands for all. The empty table expects every
    symbol equally often.

    Raises:
        ArtifactError: the table is malformed.
    """
    return _frequencies(bytes(table), alphabet)


@functools.lru_cache(maxsize=1024)
def _frequencies(table: bytes, alphabet: int) -> tuple[int, Frequencies]:
    if table:
        tag, levels = read_levels(table, alphabet)
        precision = MIN_PRECISION + tag
    else:
        levels, precision = np.ones(alphabet, np.int64), UNIFORM_PRECISION
    result = _from_levels(levels[None], np.array([precision]))[0]
    result.flags.writeable = False
    return precision, result


def best_table(histogram: NDArray[np.int64]) -> bytes:
    """Return the table for which its own bytes and the symbols of ``histogram`` together take fewest bits."""
    if not histogram.any():
        return b""
    levels = _candidates(histogram)
    sizes = 8 * np.ceil(best_code(levels)[0] / 8 + 1)
    tried = np.arange(MIN_PRECISION_OF_MANY if histogram.sum() >= MANY else MIN_PRECISION, MAX_PRECISION + 1)
    precision = np.repeat(tried, len(levels))
    payload = cross_entropy(histogram, _from_levels(np.tile(levels, (tried.size, 1)), precision), precision)
    payload *= 1 + STATE_LOSS * 4.0 ** (precision - MAX_PRECISION)
    whole = payload + precision + np.tile(sizes, tried.size)  # a state is k bits after its first symbol
    best = int(whole.argmin())
    uniform, equal = frequencies(b"", histogram.size)
    if cross_entropy(histogram, equal, np.int64(uniform)) + uniform <= whole[best]:
        return b""
    return write_levels(levels[best % len(levels)], int(precision[best]) - MIN_PRECISION)


def cross_entropy(
    histogram: NDArray[np.int64], freqs: Frequencies, precision: NDArray[np.int64] | np.int64
) -> NDArray[np.float64]:
    """Return the bits that symbols of ``histogram`` take, ``(...)``; infinite where the table lacks one of them.

    Args:
        histogram: ``(alphabet,)``.
        freqs: ``(..., 2, alphabet)``, as of :func:`frequencies`.
        precision: ``(...)``.
    """
    seen = histogram > 0
    first, second = freqs[..., 0, :], freqs[..., 1, :]
    rare = second > 0
    stand_in = np.where(rare, first, 0).sum(-1, keepdims=True)
    whole = np.asarray(precision, np.float64)[..., None]
    with np.errstate(divide="ignore"):
        bits = whole - np.log2(np.where(rare, stand_in, first)[..., seen])
        bits += np.where(rare, whole - np.log2(np.maximum(second, 1)), 0)[..., seen]
    result: NDArray[np.float64] = bits @ histogram[seen].astype(np.float64)
    return result


def _candidates(histogram: NDArray[np.int64]) -> Levels:
    """Return levels worth trying, ``(rows, alphabet)``."""
    # An error d of sqrt(p) costs n d^2 / ln 2 bits, and half the error one more bit: worth it until d^2 ~ 1 / n.
    finest = np.sqrt(histogram.max()) * 2.0 ** np.arange(-2.5, 1.01, 0.5)
    tops = np.unique(np.clip(np.rint(finest), 1, MAX_LEVEL))
    roots = np.sqrt(histogram / histogram.max())
    levels: Levels = np.maximum(np.rint(tops[:, None] * roots), histogram > 0).astype(np.int64)
    return levels


def _from_levels(levels: Levels, precision: NDArray[np.int64]) -> Frequencies:
    """Return the frequencies, ``(rows, 2, alphabet)``, of rows of levels."""
    weights = levels**2
    slots = (1 << precision)[:, None]
    rare = (levels > 0) & (weights * (slots - 1) < weights.sum(1, keepdims=True))
    stand_in = rare & (np.cumsum(rare, 1) == 1)
    pooled = np.where(rare, weights, 0)
    first = np.where(rare, stand_in * pooled.sum(1, keepdims=True), weights)
    return np.stack([_spread(first, stand_in, slots), _spread(pooled, rare, slots)], 1)


def _spread(weights: Levels, sure: NDArray[np.bool_], slots: NDArray[np.int64]) -> Frequencies:
    """Share out ``slots`` in proportion to ``weights``, after one for each ``sure`` symbol; none where none weighs."""
    running = np.cumsum(weights, 1)
    given = np.cumsum(sure, 1)
    bounds = given + running * (slots - given[:, -1:]) // np.maximum(running[:, -1:], 1)
    return np.diff(bounds, axis=1, prepend=0)
