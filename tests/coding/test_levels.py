from __future__ import annotations

import numpy as np
import page_decoder
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from attar._src.coding.levels import (
    MAX_BYTES,
    MAX_LEVEL,
    best_code,
    fold,
    golomb_bits,
    read_levels,
    unfold,
    write_levels,
)
from attar._src.core.errors import ArtifactError

levels_of = hnp.arrays(
    np.int64,
    st.integers(1, 256),
    elements=st.one_of(st.just(0), st.integers(0, 20), st.integers(0, MAX_LEVEL)),
).filter(lambda levels: bool(levels.any()))


@given(levels_of, st.integers(0, 7))
def test_levels_come_back(levels: NDArray[np.int64], tag: int) -> None:
    table = write_levels(levels, tag)
    assert len(table) <= MAX_BYTES
    back_tag, back = read_levels(table, levels.size)
    assert back_tag == tag
    np.testing.assert_array_equal(back, levels)
    assert page_decoder.table(table, levels.size) == (tag, levels.tolist())
    assert len(table) == 1 + -(-int(best_code(levels[None])[0][0]) // 8)


@given(st.binary(max_size=60), st.integers(1, 256))
def test_a_table_that_is_read_is_read_as_on_the_page(table: bytes, alphabet: int) -> None:
    try:
        tag, levels = read_levels(table, alphabet)
    except ArtifactError:
        if table:
            with pytest.raises(AssertionError):
                page_decoder.table(table, alphabet)
        return
    assert page_decoder.table(table, alphabet) == (tag, levels.tolist())


@given(st.integers(0, MAX_LEVEL), st.integers(0, MAX_LEVEL))
def test_folding_is_undone(level: int, expected: int) -> None:
    number = int(fold(np.array(level), np.array(expected)))
    assert 0 <= number <= 2 * MAX_LEVEL
    assert unfold(number, expected) == level


def test_folding_leaves_no_number_unused() -> None:
    for expected in range(20):
        assert sorted(int(fold(np.array(level), np.array(expected))) for level in range(100)) == list(range(100))


def test_golomb_lengths() -> None:
    assert golomb_bits(0, np.arange(8)).tolist() == [1, 3, 3, 5, 5, 5, 5, 7]
    assert golomb_bits(2, np.arange(5)).tolist() == [3, 3, 3, 3, 5]


@pytest.mark.parametrize("value", [1, 9, MAX_LEVEL])
def test_a_lone_level_among_many_is_short(value: int) -> None:
    levels = np.zeros(256, np.int64)
    levels[200] = value
    assert len(write_levels(levels, 0)) <= 8


def table_of(bits: str, first: int = 0) -> bytes:
    return bytes([first]) + int(bits[::-1] or "0", 2).to_bytes(-(-len(bits) // 8), "little")


@pytest.mark.parametrize(
    ("table", "alphabet", "message"),
    [
        (b"", 4, "0 bytes"),
        (b"\0" * (MAX_BYTES + 1), 4, "1025 bytes"),
        (b"\x80\xff", 4, "predictor 2"),
        (b"\0", 4, "ends before"),
        (table_of("1" + "011"), 1, "leaves out"),
        (table_of("11" + "11"), 2, "splits a run"),
        (table_of("1" + "010"), 2, "no symbols"),
        (table_of("0" * 13 + "1" + "0" * 13), 1, "level 8191"),
        (table_of("0" * 18 + "1" + "0" * 18), 1, "ends before"),
        (table_of("010") + b"\0", 1, "after its last symbol"),
        (table_of("0101"), 1, "after its last symbol"),
    ],
)
def test_malformed_tables_are_refused(table: bytes, alphabet: int, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_levels(table, alphabet)
