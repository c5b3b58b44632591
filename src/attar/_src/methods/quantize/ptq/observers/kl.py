"""Entropy calibration of activations."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.methods.quantize.ptq.observers.calibration import Observer
from attar._src.model.statistics import Histogram

_Counts = NDArray[np.float64]
#: Ranges that are compared.
_TRIED = 128
#: Narrowest of them, as a share of the whole.
_NARROWEST = 1 / 32
#: What a bin without values counts, so that no logarithm is infinite.
_EMPTY = 0.5


class Divergence(Observer):
    """The range whose grid keeps the distribution of the values best, by the Kullback-Leibler divergence (entropy
    calibration; Migacz, "8-bit inference with TensorRT", GTC 2017).

    For 128 ranges ``[r low, r high]``, r from 1 down to 1/32, P are the counts of the histogram's bins with all values
    outside in the last bin at their end; Q are those counts without the values outside, shared out evenly among the
    bins of each of the ``2^bits`` levels that are not empty. The range with the least ``sum P log (P / Q)`` is taken.

    Deviations: ranges keep the ratio of their ends, so that they serve asymmetric grids; values that are exactly zero
    do not count, as every grid has a zero (behind ReLU they would be most of P). Should be preferred for 8 bits and
    values with long tails; with fewer bits it clips more than ``mse``, whose error it does not see.
    """

    name: ClassVar[str] = "kl"

    def range(self, seen: Histogram, bits: int) -> tuple[float, float]:
        low, high = min(seen.low, 0.0), max(seen.high, 0.0)
        counts, centres = seen.counts.astype(np.float64), seen.centres
        if not seen.high > seen.low:
            return low, high
        counts[np.clip(np.searchsorted(seen.edges, 0.0, side="right") - 1, 0, len(counts) - 1)] -= seen.zeros
        counts = np.maximum(counts, 0)
        best, chosen = np.inf, (low, high)
        for ratio in np.linspace(1.0, _NARROWEST, _TRIED):
            start, stop = low * ratio, high * ratio
            inside = (centres >= start) & (centres <= stop)
            if np.count_nonzero(inside) < 1 << bits:
                break
            found = _divergence(counts, centres, inside, start, (stop - start) / (1 << bits), bits)
            if found < best:
                best, chosen = found, (start, stop)
        return chosen


def _divergence(
    counts: _Counts, centres: _Counts, inside: NDArray[np.bool_], start: float, width: float, bits: int
) -> float:
    """Return ``KL(P || Q)`` of the range from ``start`` whose levels have this width."""
    kept = counts[inside]
    clipped = kept.copy()
    first = int(np.argmax(inside))
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[first + len(kept) :].sum()
    if not (total := clipped.sum()):
        return np.inf
    level = np.clip(((centres[inside] - start) / width).astype(np.int64), 0, (1 << bits) - 1)
    filled = kept > 0
    share = np.bincount(level, kept, 1 << bits) / np.maximum(np.bincount(level, filled, 1 << bits), 1)
    spread = np.maximum(np.where(filled, share[level], 0), _EMPTY)
    used = clipped > 0
    p, q = clipped[used] / total, spread[used] / spread.sum()
    return float((p * np.log(p / q)).sum())
