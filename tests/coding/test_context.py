"""The context coder: what it saves, C, Python and the page alike, damage."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import page_decoder
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attar._src.coding.base import Status
from attar._src.coding.chunks import CHUNK
from attar._src.coding.contexts import fit
from attar._src.coding.contexts.coder import ContextCoder
from attar._src.coding.contexts.fit import fit_table
from attar._src.coding.contexts.slow import context_decoder, encode_context
from attar._src.coding.contexts.table import ContextTable
from attar._src.coding.entropy import entropy_bits
from attar._src.coding.kernels import NATIVE
from attar._src.core.errors import ArtifactError

CODER = ContextCoder()
Symbols = NDArray[np.uint8]


def smooth(shape: tuple[int, ...], alphabet: int, spread: float, seed: int = 0) -> Symbols:
    """Return codes of kernels whose neighbours resemble each other, with a scale of their own in each row."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 1, shape)
    for axis in range(2, len(shape)):
        values = values + np.roll(values, 1, axis)
    values *= random.uniform(0.3, 1.7, (shape[0], *[1] * (len(shape) - 1)))
    middle = alphabet // 2
    return (np.clip(np.rint(spread * values), -middle, alphabet - 1 - middle) + middle).astype(np.uint8).reshape(-1)


def entropy(symbols: Symbols) -> float:
    return entropy_bits(np.bincount(symbols)) * symbols.size / 8


@pytest.mark.parametrize(
    ("alphabet", "spread", "share"), [(15, 0.8, 0.95), (255, 14.0, 0.98), (3, 0.3, 0.97), (63, 4.0, 0.96)]
)
def test_symbols_that_resemble_their_neighbours_take_less_than_their_entropy(
    alphabet: int, spread: float, share: float
) -> None:
    symbols = smooth((64, 32, 3, 3), alphabet, spread)
    table = fit_table(symbols, (64, 32, 3, 3), alphabet).write()
    payload = CODER.encode(symbols, table, alphabet)
    assert len(table) + len(payload) < share * entropy(symbols)
    np.testing.assert_array_equal(CODER.decode(memoryview(payload), symbols.size, table, alphabet), symbols)


@pytest.mark.parametrize("zeros", [0.5, 0.99, 0.9999])
def test_independent_symbols_take_little_more_than_their_entropy(zeros: float) -> None:
    random = np.random.default_rng(3)
    symbols = (np.where(random.random(200_000) < zeros, 0, random.integers(-7, 8, 200_000)) + 7).astype(np.uint8)
    table = fit_table(symbols, (200, 1000), 15).write()
    assert len(CODER.encode(symbols, table, 15)) < 1.01 * entropy(symbols) + 80


@pytest.mark.parametrize("zeros", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("center", [127, 100])
def test_zeros_among_many_values_have_a_bucket_of_their_own(zeros: float, center: int) -> None:
    random = np.random.default_rng(3)
    values = np.clip(np.rint(random.normal(0, 36, 200_000)), -center, 254 - center)
    symbols = (np.where(random.random(values.size) < zeros, 0, values) + center).astype(np.uint8)
    table = fit_table(symbols, (200, 1000), 255)
    assert (table.apart, table.center) == (True, center)
    payload = CODER.encode(symbols, table.write(), 255)
    assert len(payload) < 1.012 * entropy(symbols)
    np.testing.assert_array_equal(CODER.decode(memoryview(payload), symbols.size, table.write(), 255), symbols)


def test_values_without_many_zeros_share_buckets() -> None:
    table = fit_table(smooth((64, 32, 3, 3), 255, 14.0), (64, 32, 3, 3), 255)
    assert (table.apart, table.shift) == (False, 3)


@pytest.mark.parametrize("shift", range(1, 8))
def test_every_value_has_a_place(shift: int) -> None:
    for alphabet, center in ((255, 127), (256, 128), (9, 0), (4, 3)):
        table = ContextTable(alphabet, 1, 2, 1, center, shift, (0,) * 4, (0,) * 7, apart=True)
        values = range(-center, alphabet - center)
        places = [table.place(value) for value in values]
        assert len(set(places)) == alphabet
        assert [table.value(bucket, number) for bucket, number, _ in places] == list(values)
        assert {bucket for bucket, *_ in places} <= set(range(table.buckets))


@pytest.mark.parametrize("spread", [1.5, 40.0])
def test_weights_are_fitted_the_same_in_whatever_order_a_machine_sums(spread: float) -> None:
    """Bytes that depend on the machine: sums that are rounded differ by its vectors and its BLAS."""
    rng = np.random.default_rng(5)
    inputs = np.rint(16 * np.abs(rng.normal(0, spread, (30_000, 7)))) / 16
    wanted = np.rint(np.abs(inputs @ rng.normal(0, 0.4, 7)))
    weights = 1 / (inputs[:, 0] ** 2 + 0.01)
    found = fit._solve(inputs, wanted, weights)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(inputs))
        assert fit._solve(inputs[order], wanted[order], weights[order]) == found
    scaled = inputs * weights[:, None]
    np.testing.assert_allclose(found, np.linalg.solve(scaled.T @ inputs, scaled.T @ wanted), rtol=1e-3, atol=1e-4)


def test_the_width_is_found_where_the_shape_does_not_tell_it() -> None:
    random = np.random.default_rng(0)
    images = random.normal(0, 1, (100, 28, 28))
    images = images + np.roll(images, 1, 1)
    symbols = (np.clip(np.rint(images * 2), -7, 7) + 7).astype(np.uint8).reshape(-1)
    table = fit_table(symbols, (100, 784), 15)
    assert (table.width, table.row, table.period, table.center) == (28, 784, 1, 7)
    left, up = table.values[:2]
    assert abs(left) <= 1  # the vertical neighbour tells, the left one does not
    assert up > 4


tables = st.builds(
    ContextTable,
    st.integers(1, 256),
    st.integers(1, 300),
    st.integers(2, 60),
    st.integers(1, 32),
    st.integers(0, 255),
    st.integers(0, 8),
    st.tuples(*[st.integers(-8, 7)] * 4),
    st.tuples(*[st.integers(0, 15)] * 7),
    st.booleans(),
).filter(
    lambda table: (
        table.center < table.alphabet and 2 <= table.buckets <= 33 and not (table.apart and table.shift in (0, 8))
    )
)


@settings(max_examples=60, deadline=None)
@given(tables, st.integers(0, 700), st.integers(0, 2**32 - 1), st.floats(0.05, 3))
def test_any_table_codes_any_symbols_the_same_in_c_and_in_python(
    table: ContextTable, count: int, seed: int, power: float
) -> None:
    data, random = table.write(), np.random.default_rng(seed)
    assert ContextTable.read(data, table.alphabet) == table
    symbols = (random.random(count) ** power * table.alphabet).astype(np.uint8)
    payload = CODER.encode(symbols, data, table.alphabet)
    decoded = CODER.decode(memoryview(payload), count, data, table.alphabet)
    np.testing.assert_array_equal(decoded, symbols)
    if count and NATIVE:
        assert encode_context(symbols, table) == payload
        slowly = np.empty_like(symbols)
        assert context_decoder(data, table.alphabet)(np.frombuffer(payload, np.uint8), slowly) == Status.OK
        np.testing.assert_array_equal(slowly, symbols)


def test_chunks_are_coded_on_their_own_and_counts_are_halved() -> None:
    symbols = smooth((600, 1000), 3, 0.2)
    assert symbols.size > CHUNK
    table = fit_table(symbols, (600, 1000), 3).write()
    payload = CODER.encode(symbols, table, 3)
    np.testing.assert_array_equal(CODER.decode(memoryview(payload), symbols.size, table, 3, threads=2), symbols)


def same_as_on_the_page(symbols: Symbols, table: ContextTable) -> None:
    data = table.write()
    payload = CODER.encode(symbols, data, table.alphabet)
    assert page_decoder.context(payload, symbols.size, data, table.alphabet) == symbols.tolist()


@pytest.mark.parametrize(
    ("shape", "alphabet", "spread"),
    [
        pytest.param((0, 3), 15, 1.0, id="nothing"),
        pytest.param((1, 1), 15, 1.0, id="one symbol"),
        pytest.param((30, 30), 1, 0.0, id="alphabet 1"),
        pytest.param((40, 50), 2, 0.5, id="alphabet 2"),
        pytest.param((2, 400), 3, 0.3, id="two lines"),
        pytest.param((64, 8, 3, 3), 15, 1.0, id="period 9"),
        pytest.param((4, 28, 28), 63, 4.0, id="images"),
        pytest.param((100, 50), 255, 14.0, id="alphabet 255"),
        pytest.param((16, 16, 3, 3), 256, 40.0, id="alphabet 256, period 9"),
    ],
)
def test_the_page_suffices_to_decode(shape: tuple[int, ...], alphabet: int, spread: float) -> None:
    symbols = smooth(shape, alphabet, spread)
    same_as_on_the_page(symbols, fit_table(symbols, shape, alphabet))


@settings(deadline=None, max_examples=40)
@given(tables, st.integers(0, 400), st.integers(0, 2**32 - 1), st.floats(0.05, 3))
def test_the_page_suffices_to_decode_anything(table: ContextTable, count: int, seed: int, power: float) -> None:
    random = np.random.default_rng(seed)
    same_as_on_the_page((random.random(count) ** power * table.alphabet).astype(np.uint8), table)


@pytest.mark.parametrize(("alphabet", "shift"), [(3, 0), (15, 0), (255, 4)])
def test_the_page_suffices_to_decode_what_halves_every_count(alphabet: int, shift: int) -> None:
    symbols = smooth((90, 100), alphabet, alphabet / 8)
    # without neighbours there is one count of all symbols, one for each position, and one more of all symbols, twice
    table = ContextTable(alphabet, 100, 2, 2, alphabet // 2, shift, (0,) * 4, (0,) * 7)
    assert symbols.size // table.period * 16 > 60_000
    same_as_on_the_page(symbols, table)


def test_the_page_suffices_to_decode_chunks() -> None:
    symbols = smooth((2000, 30, 3, 3), 15, 1.0)[: CHUNK + 2000]
    table = ContextTable(15, 37, 3, 9, 7, 0, (5, 4, 1, -1), (3, 1, 4, 1, 0, 4, 3))
    data = table.write()
    (first, first_size), (second, second_size) = page_decoder.chunks(CODER.encode(symbols, data, 15), symbols.size)
    assert (first_size, second_size) == (CHUNK, 2000)
    assert first == CODER.encode(symbols[:CHUNK], data, 15)  # the page takes too long for it
    assert page_decoder.context(second, second_size, data, 15) == symbols[CHUNK:].tolist()


def test_the_example_on_the_page() -> None:
    data, payload = bytes.fromhex("03 00 02 01 01 00 00 00 00 00 00"), bytes.fromhex("5C 55 05")
    symbols = np.array([1, 1, 2, 1, 0], np.uint8)
    assert CODER.encode(symbols, data, 3) == payload
    assert page_decoder.context(payload, 5, data, 3) == symbols.tolist()


@settings(deadline=None, max_examples=120)
@given(
    payload=st.binary(max_size=12),
    table=st.binary(max_size=12)
    | st.tuples(*[st.integers(0, most) for most in (2, 0, 9, 34, 4)], st.binary(min_size=6, max_size=6)).map(
        lambda parts: bytes(parts[:5]) + parts[5]
    ),
    count=st.integers(0, 12),
)
def test_what_is_refused_is_refused_by_the_page(payload: bytes, table: bytes, count: int) -> None:
    try:
        symbols = CODER.decode(memoryview(payload), count, table, 4).tolist()
    except ArtifactError:
        with pytest.raises(AssertionError):
            page_decoder.context(payload, count, table, 4)
    else:
        assert page_decoder.context(payload, count, table, 4) == symbols


def damaged(payload: bytes) -> Iterator[bytes]:
    yield b""
    yield payload[:-1]
    yield payload[:-2]
    yield payload + b"\0"
    yield payload + b"\1\0"
    yield b"\0\0\0\0" + payload[4:]
    for place in range(0, len(payload), 7):
        yield payload[:place] + bytes([payload[place] ^ 0x55]) + payload[place + 1 :]


def test_damage_is_refused_or_decodes_to_symbols_of_the_alphabet_alike_in_c_in_python_and_by_the_page() -> None:
    symbols = smooth((8, 20), 15, 2.0)
    table = fit_table(symbols, (8, 20), 15).write()
    refused = 0
    for payload in damaged(CODER.encode(symbols, table, 15)):
        slowly = np.empty_like(symbols)
        status = context_decoder(table, 15)(np.frombuffer(payload, np.uint8), slowly)
        try:
            decoded = CODER.decode(memoryview(payload), symbols.size, table, 15)
        except ArtifactError:
            assert status
            refused += 1
            with pytest.raises(AssertionError):
                page_decoder.context(payload, symbols.size, table, 15)
        else:
            assert not status
            np.testing.assert_array_equal(decoded, slowly)
            assert page_decoder.context(payload, symbols.size, table, 15) == decoded.tolist()
    assert refused > 10


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda table: table[:-1], id="short"),
        pytest.param(lambda table: table + b"\0", id="long"),
        pytest.param(lambda table: b"\0\0" + table[2:], id="row 0"),
        pytest.param(lambda table: table[:2] + b"\1" + table[3:], id="width 1"),
        pytest.param(lambda table: table[:3] + b"\0" + table[4:], id="period 0"),
        pytest.param(lambda table: table[:3] + b"\x21" + table[4:], id="period 33"),
        pytest.param(lambda table: table[:4] + b"\x0f" + table[5:], id="centre 15 of 15 symbols"),
        pytest.param(lambda table: table[:10] + b"\x50", id="1 bucket"),
    ],
)
def test_a_malformed_table_is_refused(change: object) -> None:
    symbols = smooth((8, 20), 15, 2.0)
    table = fit_table(symbols, (8, 20), 15).write()
    payload = CODER.encode(symbols, table, 15)
    assert callable(change)
    with pytest.raises(ArtifactError, match="context coder"):
        CODER.decode(memoryview(payload), symbols.size, change(table), 15)
    with pytest.raises(AssertionError):
        page_decoder.context(b"", 0, change(table), 15)
