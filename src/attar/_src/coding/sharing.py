"""Sharing tables: one for several tensors where that takes fewer bytes than one each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Coder

# What a table's record takes in a deflated manifest, about.
RECORD_BITS = 48.0


def share_tables(coder: Coder, histograms: Sequence[NDArray[np.int64]]) -> tuple[list[bytes], list[int]]:
    """Return tables, and for each histogram the index of its own, so that tables and payloads together are small.

    Histograms of one alphabet start with a table each; the two groups whose union saves most are joined until no
    union saves anything (agglomerative clustering; the price of a union is a Kullback-Leibler divergence, its gain a
    table). A coder that needs no tables (``Raw``) gets one empty table for each alphabet, which
    a writer need not store.

    Args:
        coder: whose tables.
        histograms: one for each tensor, shape ``(alphabet,)`` each; empty tensors (all zero) go along with any.
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
    """Return the rows of ``histograms`` in groups: whichever of separate, clustered and all together is smallest."""
    sizes = [8.0 * len(coder.table(histogram)) + RECORD_BITS for histogram in histograms]
    separate = [[i] for i in range(len(histograms))]
    together = [list(range(len(histograms)))]
    options = [separate, _cluster(histograms, np.array(sizes)), together]
    return min(options, key=lambda groups: _total(coder, histograms, groups))


def _total(coder: Coder, histograms: NDArray[np.int64], groups: list[list[int]]) -> float:
    """Return the bits of tables, their records and payloads."""
    bits = 0.0
    for group in groups:
        table = coder.table(histograms[group].sum(0))
        bits += 8 * len(table) + RECORD_BITS + sum(coder.cost(histograms[i], table) for i in group)
    return bits


def _cluster(histograms: NDArray[np.int64], table_bits: NDArray[np.float64]) -> list[list[int]]:
    """Join the two groups that save most, as long as any do; payloads are taken at their entropy.

    Args:
        histograms: ``(groups, alphabet)``.
        table_bits: ``(groups,)``, what the table of each takes; a union's is taken to be as large as the larger.
    """
    counts = histograms.astype(np.float64)
    tables = table_bits.copy()
    payloads = _information(counts)
    groups = [[i] for i in range(len(counts))]
    alive = np.ones(len(counts), bool)

    def savings(i: int) -> NDArray[np.float64]:
        """What joining group i with each other one saves, in bits."""
        gain = np.minimum(tables, tables[i]) + payloads + payloads[i] - _information(counts + counts[i])
        return np.where(alive & (np.arange(len(counts)) != i), gain, -np.inf)

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
    """Return the zero-order information of histograms, in bits: n log2 n - sum(c log2 c) along the last axis."""
    total = counts.sum(-1)
    each: NDArray[np.float64] = (counts * np.log2(np.maximum(counts, 1))).sum(-1)
    result: NDArray[np.float64] = total * np.log2(np.maximum(total, 1)) - each
    return result
