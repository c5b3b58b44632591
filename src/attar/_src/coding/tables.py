"""rANS tables: symbol frequencies as integers that sum to 2^k, chosen to minimise table plus payload.

A table holds a level q for each symbol; its weight is q^2. Levels are square roots because equal errors of sqrt(p) cost
equal numbers of bits (the information metric of a multinomial is flat in sqrt(p)). Frequencies follow from the weights
in integer arithmetic (``docs/format.md``, section 4.3). Symbols rarer than 1 in 2^k are coded in two steps: a stand-in
for all rare symbols, then the symbol. Otherwise a hundred rare symbols would take a hundred of the 2^k slots.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.levels import MAX_LEVEL, Levels, best_code, read_levels, write_levels

MIN_PRECISION = 8
MAX_PRECISION = 15
UNIFORM_PRECISION = 9
# Least precision for many symbols: fewer slots make more symbols rare, and the second step is slow.
MANY, MIN_PRECISION_OF_MANY = 4096, 11
# Share of the payload lost to rounding in the 32-bit state at k = 15 (measured); a quarter of it for each lower k.
STATE_LOSS = 3e-4

Frequencies = NDArray[np.int64]


@functools.lru_cache(maxsize=1024)
def frequencies(table: bytes, alphabet: int) -> tuple[int, Frequencies]:
    """Return the precision k, 8 to 15, and the frequencies of both coding steps, ``(2, alphabet)``.

    Row 0 sums to 2^k; so does row 1, unless no symbol is rare: then it is zero. Rare symbols have a frequency in row 1;
    in row 0 the first rare symbol stands in for all of them. The empty table means equal frequencies.

    Raises:
        ArtifactError: the table is malformed.
    """
    if table:
        tag, levels = read_levels(table, alphabet)
        precision = MIN_PRECISION + tag
    else:
        levels, precision = np.ones(alphabet, np.int64), UNIFORM_PRECISION
    result = _from_levels(levels[None], np.array([precision]))[0]
    result.flags.writeable = False
    return precision, result


def best_table(histogram: NDArray[np.int64]) -> bytes:
    """Return the table that minimises its own size plus the payload of symbols with this histogram."""
    if not histogram.any():
        return b""
    levels = _candidates(histogram)
    sizes = 8 * np.ceil(best_code(levels)[0] / 8 + 1)
    tried = np.arange(MIN_PRECISION_OF_MANY if histogram.sum() >= MANY else MIN_PRECISION, MAX_PRECISION + 1)
    precision = np.repeat(tried, len(levels))
    payload = cross_entropy(histogram, _from_levels(np.tile(levels, (tried.size, 1)), precision), precision)
    payload *= 1 + STATE_LOSS * 4.0 ** (precision - MAX_PRECISION)
    whole = payload + precision + np.tile(sizes, tried.size)  # the first symbol fills k bits of the state
    best = int(whole.argmin())
    uniform, equal = frequencies(b"", histogram.size)
    if cross_entropy(histogram, equal, np.int64(uniform)) + uniform <= whole[best]:
        return b""
    return write_levels(levels[best % len(levels)], int(precision[best]) - MIN_PRECISION)


def cross_entropy(
    histogram: NDArray[np.int64], freqs: Frequencies, precision: NDArray[np.int64] | np.int64
) -> NDArray[np.float64]:
    """Return the payload size in bits, ``(...)``, of symbols with this histogram; infinite if a symbol is missing.

    ``precision (...)`` and ``freqs (..., 2, alphabet)`` are as :func:`frequencies` returns them.
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
    # An error d of sqrt(p) costs n d^2 / ln 2 bits; halving it costs one more bit, which pays until d^2 ~ 1 / n.
    finest = np.sqrt(histogram.max()) * 2.0 ** np.arange(-2.5, 1.01, 0.5)
    tops = np.unique(np.clip(np.rint(finest), 1, MAX_LEVEL))
    roots = np.sqrt(histogram / histogram.max())
    levels: Levels = np.maximum(np.rint(tops[:, None] * roots), histogram > 0).astype(np.int64)
    return levels


def _from_levels(levels: Levels, precision: NDArray[np.int64]) -> Frequencies:
    """Return the frequencies ``(rows, 2, alphabet)`` of levels ``(rows, alphabet)``."""
    weights = levels**2
    slots = (1 << precision)[:, None]
    rare = (levels > 0) & (weights * (slots - 1) < weights.sum(1, keepdims=True))
    stand_in = rare & (np.cumsum(rare, 1) == 1)
    pooled = np.where(rare, weights, 0)
    first = np.where(rare, stand_in * pooled.sum(1, keepdims=True), weights)
    return np.stack([_spread(first, stand_in, slots), _spread(pooled, rare, slots)], 1)


def _spread(weights: Levels, sure: NDArray[np.bool_], slots: NDArray[np.int64]) -> Frequencies:
    """Give one slot to each ``sure`` symbol and the rest in proportion to ``weights``; zero if all weights are."""
    running = np.cumsum(weights, 1)
    given = np.cumsum(sure, 1)
    bounds = given + running * (slots - given[:, -1:]) // np.maximum(running[:, -1:], 1)
    return np.diff(bounds, axis=1, prepend=0)
