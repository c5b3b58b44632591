from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from attar._src.coding.base import Coder
from attar._src.coding.registry import CODERS
from attar._src.coding.sharing import RECORD_BITS, share_tables

every_coder = pytest.mark.parametrize("coder", CODERS.values(), ids=list(CODERS))


def bell(count: int, alphabet: int, spread: float, seed: int) -> NDArray[np.int64]:
    values = np.random.default_rng(seed).normal((alphabet - 1) / 2, spread, count)
    return np.bincount(np.clip(np.rint(values), 0, alphabet - 1).astype(np.int64), minlength=alphabet)


def total(coder: Coder, histograms: list[NDArray[np.int64]], tables: list[bytes], indices: list[int]) -> float:
    payload = sum(coder.cost(h, tables[i]) for h, i in zip(histograms, indices, strict=True))
    return payload + sum(8 * len(table) + RECORD_BITS for table in tables)


@every_coder
def test_sharing_is_never_dearer_than_one_each_or_one_for_all(coder: Coder) -> None:
    histograms = [bell(300 * (1 + i), 15, 1.5 + i % 3, i) for i in range(12)]
    shared = total(coder, histograms, *share_tables(coder, histograms))
    each = total(coder, histograms, [coder.table(h) for h in histograms], list(range(12)))
    whole = total(coder, histograms, [coder.table(np.sum(histograms, 0))], [0] * 12)
    assert shared <= min(each, whole)


@pytest.mark.parametrize("name", ["rans", "huffman"])
def test_like_tensors_share_and_unlike_ones_do_not(name: str) -> None:
    histograms = [bell(20_000, 255, spread, i) for i, spread in enumerate([5, 40, 5, 40, 5, 40])]
    tables, indices = share_tables(CODERS[name], histograms)
    assert indices[0::2] == [indices[0]] * 3
    assert indices[1::2] == [indices[1]] * 3
    assert len(tables) == 2


@every_coder
def test_alphabets_do_not_mix(coder: Coder) -> None:
    histograms = [bell(500, alphabet, alphabet / 6, alphabet) for alphabet in (15, 255, 15, 255)]
    tables, indices = share_tables(coder, histograms)
    for histogram, index in zip(histograms, indices, strict=True):
        assert coder.cost(histogram, tables[index]) < float("inf")
    assert not {indices[0], indices[2]} & {indices[1], indices[3]}


@every_coder
def test_nothing_empty_and_lone(coder: Coder) -> None:
    assert share_tables(coder, []) == ([], [])
    empty, lone = np.zeros(15, np.int64), np.eye(15, dtype=np.int64)[3] * 1000
    tables, indices = share_tables(coder, [empty, lone, empty])
    assert coder.cost(lone, tables[indices[1]]) < 8 * 1001
    assert all(0 <= i < len(tables) for i in indices)


def test_raw_needs_no_tables() -> None:
    tables, indices = share_tables(CODERS["raw"], [bell(100, 15, 2, 0), bell(100, 15, 3, 1)])
    assert (tables, indices) == ([b""], [0, 0])


def test_the_same_histograms_give_the_same_tables() -> None:
    histograms = [bell(400, 15, 1 + i / 4, i) for i in range(8)]
    assert share_tables(CODERS["rans"], histograms) == share_tables(CODERS["rans"], histograms)
