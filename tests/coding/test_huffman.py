from __future__ import annotations

import heapq

import numpy as np
import page_decoder
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from attar._src.coding.chunks import CHUNK
from attar._src.coding.entropy import entropy_bits
from attar._src.coding.huffman import Huffman, code_lengths
from attar._src.coding.levels import write_levels
from attar._src.core.errors import ArtifactError, SpecError

CODER = Huffman()


def coded(symbols: NDArray[np.uint8], alphabet: int) -> tuple[bytes, bytes]:
    table = CODER.table(np.bincount(symbols, minlength=alphabet))
    return table, CODER.encode(symbols, table, alphabet)


def unlimited_cost(histogram: NDArray[np.int64]) -> int:
    """The bits of Huffman's own algorithm: the sum of the weights of all inner nodes."""
    heap = [int(weight) for weight in histogram if weight]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        node = heapq.heappop(heap) + heapq.heappop(heap)
        total += node
        heapq.heappush(heap, node)
    return total


@given(hnp.arrays(np.int64, st.integers(1, 256), elements=st.integers(0, 1000)).filter(lambda h: bool(h.any())))
def test_lengths_are_complete_and_best(histogram: NDArray[np.int64]) -> None:
    lengths = code_lengths(histogram)
    present = histogram > 0
    assert (0.5 ** lengths[present]).sum() == 1
    assert not lengths[~present].any()
    assert lengths.max() <= 15
    # With these weights a tree may be deeper than 15; then the limit may cost a little.
    assert unlimited_cost(histogram) <= (histogram * lengths).sum() <= unlimited_cost(histogram) * 1.01


def test_a_limit_holds_where_the_tree_would_be_deeper() -> None:
    fibonacci = np.array([1, 1, 2, 3, 5, 8, 13, 21])
    assert code_lengths(fibonacci).tolist() == [7, 7, 6, 5, 4, 3, 2, 1]
    limited = code_lengths(fibonacci, 4)
    assert limited.max() == 4
    assert (0.5**limited).sum() == 1


def test_the_classic_example() -> None:
    # Cormen et al., figure 16.4: weights in thousands of a to f.
    histogram = np.array([45, 13, 12, 16, 9, 5])
    assert code_lengths(histogram).tolist() == [1, 3, 3, 3, 4, 4]


@pytest.mark.parametrize("count", [1, 1000, CHUNK + 3])
def test_within_a_bit_of_the_entropy(count: int) -> None:
    symbols = np.random.default_rng(0).binomial(14, 0.4, count).astype(np.uint8)
    _, payload = coded(symbols, 15)
    bound = entropy_bits(np.bincount(symbols)) * count / 8
    assert bound <= len(payload) <= bound * 1.02 + 16


def test_a_lone_symbol_takes_no_bytes() -> None:
    symbols = np.full(1000, 3, np.uint8)
    table, payload = coded(symbols, 256)
    assert payload == b""
    assert len(table) <= 6
    np.testing.assert_array_equal(CODER.decode(memoryview(payload), 1000, table, 256), symbols)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 19), max_size=400), st.integers(20, 256))
def test_the_page_suffices_to_decode(values: list[int], alphabet: int) -> None:
    symbols = np.array(values, np.uint8)
    table, payload = coded(symbols, alphabet)
    assert page_decoder.huffman(payload, symbols.size, table, alphabet) == values


@pytest.mark.parametrize("alphabet", [1, 2, 3, 15, 16, 17, 255, 256])
def test_the_page_suffices_to_decode_without_a_table(alphabet: int) -> None:
    symbols = np.arange(alphabet, dtype=np.uint8)
    payload = CODER.encode(symbols, b"", alphabet)
    assert page_decoder.huffman(payload, alphabet, b"", alphabet) == symbols.tolist()


def test_long_codes_come_back() -> None:
    symbols = np.repeat(np.arange(20, dtype=np.uint8), [2**n for n in range(20)])[::-1]
    table, payload = coded(symbols, 20)
    np.testing.assert_array_equal(CODER.decode(memoryview(payload), symbols.size, table, 20), symbols)


@pytest.mark.parametrize("levels", [[2], [2, 3], [2, 2, 2], [1, 1], [17, 17], [0, 2, 0], [2, 3, 4, 5]])
def test_incomplete_codes_are_refused(levels: list[int]) -> None:
    with pytest.raises(ArtifactError, match="complete code"):
        CODER.decode(memoryview(b"\0"), 1, write_levels(np.array(levels), 0), len(levels))


def test_a_tag_is_refused() -> None:
    with pytest.raises(ArtifactError, match="complete code"):
        CODER.decode(memoryview(b"\0"), 1, write_levels(np.array([2, 2]), 1), 2)


def test_bits_after_the_last_symbol_are_refused() -> None:
    table = write_levels(np.array([2, 2]), 0)
    assert CODER.decode(memoryview(b"\x05"), 3, table, 2).tolist() == [1, 0, 1]
    for wrong in (b"\x0d", b"\x85", b"\x05\x00", b""):
        with pytest.raises(ArtifactError, match="does not hold"):
            CODER.decode(memoryview(wrong), 3, table, 2)


def test_a_symbol_the_table_lacks_is_named() -> None:
    table = CODER.table(np.array([900, 50, 0, 50]))
    with pytest.raises(SpecError, match=r"symbols \[2\]"):
        CODER.encode(np.array([0, 2], np.uint8), table, 4)
    assert CODER.cost(np.array([1, 0, 1, 0]), table) == np.inf
