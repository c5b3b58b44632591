from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from attar._src.coding.entropy import entropy_bits
from attar._src.coding.levels import MAX_LEVEL, write_levels
from attar._src.coding.tables import best_table, cross_entropy, frequencies


def bell(count: int, alphabet: int, spread: float, zeros: float = 0.0) -> NDArray[np.int64]:
    random = np.random.default_rng(count + alphabet)
    middle = alphabet // 2
    values = np.clip(np.rint(random.normal(0, spread, count)), -middle, middle)
    values = np.where(random.random(count) < zeros, 0, values) + middle
    return np.bincount(values.astype(np.int64), minlength=alphabet)


def check(freqs: NDArray[np.int64], precision: int, present: NDArray[np.bool_]) -> None:
    first, second = freqs
    rare = second > 0
    assert first.sum() == 1 << precision
    assert second.sum() in ((1 << precision,) if rare.any() else (0,))
    np.testing.assert_array_equal((first > 0) | rare, present)
    if rare.any():
        assert first[rare.argmax()] > 0
        assert not first[rare][1:].any()
    assert (freqs >= 0).all()


@given(
    hnp.arrays(np.int64, st.integers(1, 256), elements=st.integers(0, MAX_LEVEL)).filter(lambda q: bool(q.any())),
    st.integers(0, 7),
)
def test_every_symbol_present_has_a_place_whatever_the_levels(levels: NDArray[np.int64], tag: int) -> None:
    precision, freqs = frequencies(write_levels(levels, tag), levels.size)
    assert precision == 8 + tag
    check(freqs, precision, levels > 0)


@pytest.mark.parametrize("alphabet", range(1, 257))
def test_the_empty_table_is_uniform(alphabet: int) -> None:
    precision, freqs = frequencies(b"", alphabet)
    check(freqs, precision, np.ones(alphabet, bool))
    assert np.ptp(freqs[0]) <= 1
    assert not freqs[1].any()


@settings(deadline=None)
@given(hnp.arrays(np.int64, st.integers(1, 256), elements=st.integers(0, 2**20)))
def test_the_best_table_has_every_symbol_and_is_no_dearer_than_none(histogram: NDArray[np.int64]) -> None:
    table = best_table(histogram)
    precision, freqs = frequencies(table, histogram.size)
    bits = float(cross_entropy(histogram, freqs, np.int64(precision)))
    none, equal = frequencies(b"", histogram.size)
    assert np.isfinite(bits)
    assert bits + 8 * len(table) <= float(cross_entropy(histogram, equal, np.int64(none))) + 1e-6


@pytest.mark.parametrize(
    ("histogram", "size"),
    [
        (bell(36_864, 15, 2.2), 12),
        (bell(36_864, 15, 2.2, 0.9), 10),
        (bell(36_864, 3, 0.7), 5),
        (bell(36_864, 255, 30), 75),
        (bell(36_864, 255, 30, 0.9), 75),
        (bell(36_864, 255, 3), 25),
        (np.eye(256, dtype=np.int64)[77] * 100_000, 8),
    ],
    ids=["4 bit", "4 bit, zeros", "2 bit", "8 bit", "8 bit, zeros", "8 bit, peaked", "lone"],
)
def test_tables_are_small_and_near_the_entropy(histogram: NDArray[np.int64], size: int) -> None:
    table = best_table(histogram)
    assert len(table) <= size
    precision, freqs = frequencies(table, histogram.size)
    excess = cross_entropy(histogram, freqs, np.int64(precision)) - entropy_bits(histogram) * histogram.sum()
    assert 0 <= excess / 8 <= 25


def test_a_hundred_rare_symbols_hold_no_hundred_slots() -> None:
    histogram = np.full(101, 3)
    histogram[50] = 100_000_000
    precision, freqs = frequencies(best_table(histogram), 101)
    excess = cross_entropy(histogram, freqs, np.int64(precision)) / (entropy_bits(histogram) * histogram.sum())
    assert (freqs[1] > 0).sum() == 100
    assert excess < 8  # a slot for each of the hundred would be 80 times the entropy


def test_a_symbol_without_a_frequency_costs_infinity() -> None:
    precision, freqs = frequencies(best_table(np.array([90, 10, 0])), 3)
    assert cross_entropy(np.array([1, 1, 1]), freqs, np.int64(precision)) == np.inf


def test_more_symbols_are_worth_a_finer_table() -> None:
    sizes = [len(best_table(bell(count, 15, 2.2))) for count in (200, 20_000, 2_000_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
