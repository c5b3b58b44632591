from __future__ import annotations

import numpy as np
import page_decoder
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attar._src.coding.base import LANES
from attar._src.coding.chunks import CHUNK
from attar._src.coding.entropy import entropy_bits
from attar._src.coding.rans import SMALL, Rans
from attar._src.core.errors import ArtifactError, SpecError

CODER = Rans()


def bell(count: int, alphabet: int, spread: float, zeros: float = 0.0) -> NDArray[np.uint8]:
    random = np.random.default_rng(count + alphabet)
    middle = alphabet // 2
    values = np.clip(np.rint(random.normal(0, spread, count)), -middle, alphabet - 1 - middle)
    return (np.where(random.random(count) < zeros, 0, values) + middle).astype(np.uint8)


def coded(symbols: NDArray[np.uint8], alphabet: int) -> tuple[bytes, bytes]:
    table = CODER.table(np.bincount(symbols, minlength=alphabet))
    return table, CODER.encode(symbols, table, alphabet)


@pytest.mark.parametrize(("alphabet", "spread"), [(3, 0.7), (4, 0.7), (15, 2.2), (16, 3.0), (255, 30.0), (256, 45.0)])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.parametrize("count", [1 << 16, 1_500_000])
def test_large_payloads_are_within_half_a_percent_of_the_entropy(
    alphabet: int, spread: float, zeros: float, count: int
) -> None:
    symbols = bell(count, alphabet, spread, zeros)
    table, payload = coded(symbols, alphabet)
    bound = entropy_bits(np.bincount(symbols)) * count / 8
    assert len(payload) <= 1.002 * bound
    np.testing.assert_array_equal(CODER.decode(memoryview(payload), count, table, alphabet, threads=2), symbols)


@pytest.mark.parametrize("count", [1, 2, 10, 100, 1000, 4000])
@pytest.mark.parametrize("alphabet", [2, 15, 255])
def test_small_payloads_are_within_two_bytes_of_what_their_table_allows(count: int, alphabet: int) -> None:
    symbols = bell(count, alphabet, alphabet / 6)
    histogram = np.bincount(symbols, minlength=alphabet)
    table, payload = coded(symbols, alphabet)
    assert 8 * len(payload) <= CODER.cost(histogram, table) + 16
    assert len(table) + len(payload) <= count * np.log2(alphabet) / 8 + 2


@pytest.mark.parametrize("count", [100, SMALL - 1, SMALL, CHUNK, 3 * CHUNK])
def test_a_lone_symbol_takes_no_bytes_but_to_say_where_chunks_are(count: int) -> None:
    symbols = np.full(count, 5, np.uint8)
    table, payload = coded(symbols, 16)
    assert len(payload) == (0 if count < SMALL else 2 * -(-count // CHUNK) - 1)
    np.testing.assert_array_equal(CODER.decode(memoryview(payload), count, table, 16), symbols)


def same_as_on_the_page(symbols: NDArray[np.uint8], alphabet: int) -> None:
    table, payload = coded(symbols, alphabet)
    assert page_decoder.rans(payload, symbols.size, table, alphabet) == symbols.tolist()


@pytest.mark.parametrize(
    ("count", "alphabet", "spread", "zeros"),
    [
        (0, 15, 2.2, 0.0),
        (1, 15, 2.2, 0.0),
        (7, 256, 40.0, 0.0),
        (300, 1, 0.0, 0.0),
        (4095, 15, 2.2, 0.9),
        (4096, 15, 2.2, 0.9),
        (80_003, 15, 3.0, 0.0),
        (20_003, 255, 30.0, 0.5),
        (CHUNK + 4100, 4, 0.5, 0.95),
    ],
)
def test_the_page_suffices_to_decode(count: int, alphabet: int, spread: float, zeros: float) -> None:
    same_as_on_the_page(bell(count, alphabet, spread, zeros), alphabet)


def test_the_page_suffices_to_decode_rare_symbols() -> None:
    random = np.random.default_rng(1)
    for count in (3000, 90_000):
        symbols = np.full(count, 9, np.uint8)
        symbols[random.permutation(count)[:200]] = random.integers(0, 256, 200)
        if count > 50_000:  # entropy enough for eight lanes
            symbols[::2] = random.integers(100, 116, symbols[::2].size)
        _, payload = coded(symbols, 256)
        assert count < SMALL or payload[0] == LANES
        same_as_on_the_page(symbols, 256)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 19), max_size=400), st.integers(20, 256))
def test_the_page_suffices_to_decode_anything(symbols: list[int], alphabet: int) -> None:
    same_as_on_the_page(np.array(symbols, np.uint8), alphabet)


@settings(deadline=None, max_examples=300)
@given(payload=st.binary(max_size=12), table=st.binary(max_size=6), count=st.integers(0, 12))
def test_what_is_refused_is_refused_by_the_page(payload: bytes, table: bytes, count: int) -> None:
    try:
        symbols = CODER.decode(memoryview(payload), count, table, 4).tolist()
    except ArtifactError:
        with pytest.raises((AssertionError, IndexError)):
            page_decoder.rans(payload, count, table, 4)
    else:
        assert page_decoder.rans(payload, count, table, 4) == symbols


@pytest.mark.parametrize("lanes", [0, 2, 7, 9, 255])
def test_other_numbers_of_lanes_are_refused(lanes: int) -> None:
    symbols = bell(80_000, 15, 2.2)
    table, payload = coded(symbols, 15)
    assert payload[0] == LANES
    with pytest.raises(ArtifactError, match="lanes"):
        CODER.decode(memoryview(bytes([lanes]) + payload[1:]), symbols.size, table, 15)


def test_states_below_the_lowest_are_refused() -> None:
    symbols = bell(80_000, 15, 2.2)
    table, payload = coded(symbols, 15)
    with pytest.raises(ArtifactError, match="below the lowest"):
        CODER.decode(memoryview(payload[:3] + b"\0\0" + payload[5:]), symbols.size, table, 15)
    with pytest.raises(ArtifactError, match="below the lowest"):
        CODER.decode(memoryview(b"\1\0"), 3, b"", 15)


def test_every_flip_of_a_payload_is_noticed_or_changes_symbols() -> None:
    symbols = bell(500, 15, 2.2)
    table, payload = coded(symbols, 15)
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            back = CODER.decode(memoryview(flipped), 500, table, 15)
        except ArtifactError:
            continue
        assert not np.array_equal(back, symbols)


def test_a_symbol_the_table_lacks_is_named() -> None:
    table = CODER.table(np.array([900, 50, 0, 50]))
    with pytest.raises(SpecError, match=r"symbols \[2\]"):
        CODER.encode(np.array([0, 2], np.uint8), table, 4)
    with pytest.raises(SpecError, match=r"symbols \[200\]"):
        CODER.encode(np.array([0, 200], np.uint8), table, 4)
    assert CODER.cost(np.array([1, 0, 1, 0]), table) == np.inf
