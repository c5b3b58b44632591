"""Share coding tables between tensors if that makes the file smaller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Coder

# Approximate size of a table's record in the deflated manifest.
RECORD_BITS = 48.0


def share_tables(coder: Coder, histograms: Sequence[NDArray[np.int64]]) -> tuple[list[bytes], list[int]]:
    """Return tables and, for each histogram, the index of its table, such that tables plus payloads are small.

    Agglomerative clustering of the histograms of one alphabet: starting with a table each, the merge that saves most is
    made until none saves anything. A merge costs a Kullback-Leibler divergence in the payload and saves a table. The
    histogram of an empty tensor is all zero.
    """
    tables: list[bytes] = []
    indices = [0] * len(histograms)
    for alphabet in sorted({histogram.size for histogram in histograms}):
        members = [i for i, histogram in enumerate(histograms) if histogram.size == alphabet]
        stacked = np.stack([histograms[i] for i in members]).astype(np.int64)
        for group in _groups(coder, stacked):
            for member in group:
                indices[members[member]] = len(tables)
            tables.append(coder.table(stacked[group].sum(0)))
    return tables, indices


def _groups(coder: Coder, histograms: NDArray[np.int64]) -> list[list[int]]:
    """Group the rows of ``histograms``: separate, clustered or all together, whichever is smallest."""
    sizes = np.array([8.0 * len(coder.table(histogram)) + RECORD_BITS for histogram in histograms])
    every = list(range(len(histograms)))
    options = [[i] for i in every], _cluster(histograms, sizes), [every]
    return min(options, key=lambda groups: _total(coder, histograms, groups))


def _total(coder: Coder, histograms: NDArray[np.int64], groups: list[list[int]]) -> float:
    """Return the size in bits of tables, their records and payloads."""
    bits = 0.0
    for group in groups:
        table = coder.table(histograms[group].sum(0))
        bits += 8 * len(table) + RECORD_BITS + sum(coder.cost(histograms[i], table) for i in group)
    return bits


def _cluster(histograms: NDArray[np.int64], table_bits: NDArray[np.float64]) -> list[list[int]]:
    """Merge the two groups that save most while any merge saves.

    Payload sizes are estimated by entropy; a merged table is assumed as large as the larger of the two.
    """
    counts = histograms.astype(np.float64)
    tables = table_bits.copy()
    payloads = _information(counts)
    groups = [[i] for i in range(len(counts))]
    alive = np.ones(len(counts), bool)

    def savings(i: int) -> NDArray[np.float64]:
        """Return the bits saved by merging group i with each other group."""
        gain = np.minimum(tables, tables[i]) + payloads + payloads[i] - _information(counts + counts[i])
        gain[i] = -np.inf
        return np.where(alive, gain, -np.inf)

    saved = np.stack([savings(i) for i in range(len(counts))])
    while True:
        i, j = (int(k) for k in np.unravel_index(saved.argmax(), saved.shape))
        if saved[i, j] <= 0:
            return [group for group, kept in zip(groups, alive, strict=True) if kept]
        groups[i] += groups[j]
        counts[i] += counts[j]
        payloads[i] = _information(counts[i])
        tables[i] = max(tables[i], tables[j])
        alive[j] = False
        saved[j] = saved[:, j] = -np.inf
        saved[i] = saved[:, i] = savings(i)


def _information(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the zero-order information of histograms in bits: ``n log2 n - sum(c log2 c)`` along the last axis."""
    total = counts.sum(-1)
    each: NDArray[np.float64] = (counts * np.log2(np.maximum(counts, 1))).sum(-1)
    result: NDArray[np.float64] = total * np.log2(np.maximum(total, 1)) - each
    return result
