"""What every registered entropy coder must do."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from attar._src.coding.base import Coder
from attar._src.coding.chunks import CHUNK
from attar._src.coding.entropy import entropy_bits
from attar._src.coding.registry import CODERS
from attar._src.core.errors import ArtifactError, UnknownName

#: Coders whose sizes follow from the histogram; those of contexts depend on the order of the symbols as well.
static_coder = pytest.mark.parametrize(
    "coder", [CODERS[name] for name in CODERS if name != "context"], ids=lambda coder: coder.name
)
every_coder = pytest.mark.parametrize("coder", CODERS.values(), ids=list(CODERS))
Tensor = tuple[NDArray[np.uint8], int]


@st.composite
def tensors(draw: st.DrawFn, most: int = 6000) -> Tensor:
    """Symbols and their alphabet: any histogram, from lone symbols to uniform ones, small and across the lane limit."""
    alphabet = draw(st.integers(1, 256))
    count = draw(st.one_of(st.integers(0, 20), st.integers(0, most)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    used = random.permutation(alphabet)[: draw(st.integers(1, alphabet))]
    shares = draw(st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.05])) ** np.arange(used.size)
    return random.choice(used, count, p=shares / shares.sum()).astype(np.uint8), alphabet


def histogram(symbols: NDArray[np.uint8], alphabet: int) -> NDArray[np.int64]:
    return np.bincount(symbols, minlength=alphabet).astype(np.int64)


def coded(coder: Coder, symbols: NDArray[np.uint8], alphabet: int) -> tuple[bytes, bytes]:
    table = coder.table(histogram(symbols, alphabet))
    return table, coder.encode(symbols, table, alphabet)


@every_coder
@settings(deadline=None)
@given(tensor=tensors())
def test_symbols_come_back_and_are_coded_the_same_again(coder: Coder, tensor: Tensor) -> None:
    symbols, alphabet = tensor
    table, payload = coded(coder, symbols, alphabet)
    back = coder.decode(memoryview(payload), symbols.size, table, alphabet)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, symbols)
    assert coded(coder, symbols, alphabet) == (table, payload)


@static_coder
@settings(deadline=None)
@given(tensor=tensors())
def test_payloads_are_as_large_as_announced(coder: Coder, tensor: Tensor) -> None:
    symbols, alphabet = tensor
    table, payload = coded(coder, symbols, alphabet)
    announced = coder.cost(histogram(symbols, alphabet), table) / 8
    assert abs(announced - len(payload)) <= 4 + 0.001 * len(payload)


@every_coder
@settings(deadline=None)
@given(tensor=tensors(500), other=tensors(500))
def test_any_table_that_has_the_symbols_does(coder: Coder, tensor: Tensor, other: Tensor) -> None:
    symbols, alphabet = tensor
    both = np.concatenate([symbols, other[0].astype(np.int64) % alphabet]).astype(np.uint8)
    table = coder.table(histogram(both, alphabet))
    payload = coder.encode(symbols, table, alphabet)
    np.testing.assert_array_equal(coder.decode(memoryview(payload), symbols.size, table, alphabet), symbols)


@every_coder
@pytest.mark.parametrize("alphabet", [1, 2, 3, 16, 255, 256])
def test_a_table_of_nothing_takes_every_symbol(coder: Coder, alphabet: int) -> None:
    table = coder.table(np.zeros(alphabet, np.int64))
    symbols = np.arange(alphabet, dtype=np.uint8).repeat(3)
    payload = coder.encode(symbols, table, alphabet)
    np.testing.assert_array_equal(coder.decode(memoryview(payload), symbols.size, table, alphabet), symbols)
    if coder.name != "context":  # its table says where neighbours are, and it learns frequencies as it reads
        assert table == b""
        assert len(payload) <= symbols.size * math.ceil(math.log2(alphabet)) / 8 + 2


@every_coder
def test_no_symbols_are_no_bytes(coder: Coder) -> None:
    nothing = np.zeros(0, np.uint8)
    table, payload = coded(coder, nothing, 16)
    assert payload == b""
    assert coder.decode(memoryview(payload), 0, table, 16).shape == (0,)
    with pytest.raises(ArtifactError):
        coder.decode(memoryview(b"\0"), 0, table, 16)


@every_coder
@pytest.mark.parametrize("count", [1, 7, 4095, 4096, 50_001, CHUNK, 2 * CHUNK + 12_345])
def test_sizes_and_threads(coder: Coder, count: int) -> None:
    random = np.random.default_rng(count)
    symbols = np.clip(np.rint(random.normal(7, 2.2, count)), 0, 14).astype(np.uint8)
    table, payload = coded(coder, symbols, 15)
    np.testing.assert_array_equal(coder.decode(memoryview(payload), count, table, 15), symbols)
    np.testing.assert_array_equal(coder.decode(memoryview(payload), count, table, 15, threads=2), symbols)
    assert len(payload) * 8 >= entropy_bits(histogram(symbols, 15)) * count - 16 * -(-count // CHUNK)


@every_coder
def test_strided_and_read_only_symbols(coder: Coder) -> None:
    wide = np.arange(600, dtype=np.uint8) % 5
    wide.flags.writeable = False
    symbols = wide[::3]
    table, payload = coded(coder, symbols, 5)
    np.testing.assert_array_equal(coder.decode(memoryview(payload), symbols.size, table, 5), symbols)


Damage = Callable[[bytearray], object]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Flip, cut, insert, or replace bytes."""
    kind = draw(st.sampled_from(["flip", "cut", "extend", "replace", "swap"]))
    where = draw(st.floats(0, 1, exclude_max=True))
    junk = draw(st.binary(min_size=1, max_size=9))

    def apply(data: bytearray) -> None:
        at = int(where * len(data))
        if kind == "extend" or not data:
            data[at:at] = junk
        elif kind == "flip":
            data[at] ^= 1 << junk[0] % 8
        elif kind == "cut":
            del data[at : at + len(junk)]
        elif kind == "replace":
            data[:] = junk
        else:
            data[at:] = bytes(data[at:])[::-1]

    return apply


@every_coder
@settings(deadline=None, max_examples=300)
@given(tensor=tensors(6000), damage=damages(), in_table=st.booleans())
def test_damage_is_refused_or_decodes_to_symbols(coder: Coder, tensor: Tensor, damage: Damage, in_table: bool) -> None:
    symbols, alphabet = tensor
    table, payload = (bytearray(part) for part in coded(coder, symbols, alphabet))
    before = bytes(table), bytes(payload)
    damage(table if in_table else payload)
    try:
        back = coder.decode(memoryview(payload), symbols.size, bytes(table), alphabet)
    except ArtifactError:
        return
    assert back.shape == symbols.shape
    assert back.size == 0 or int(back.max()) < alphabet
    # One payload for one sequence: other bytes that decode say something else.
    if not in_table and bytes(payload) != before[1]:
        assert not np.array_equal(back, symbols)


@every_coder
@pytest.mark.parametrize("alphabet", [1, 2, 15, 256])
def test_more_or_fewer_bytes_are_refused(coder: Coder, alphabet: int) -> None:
    random = np.random.default_rng(3)
    symbols = random.integers(0, alphabet, 30_000).astype(np.uint8)
    table, payload = coded(coder, symbols, alphabet)
    for more in (payload + b"\0", payload + b"\1\2"):
        with pytest.raises(ArtifactError):
            coder.decode(memoryview(more), symbols.size, table, alphabet)
    for fewer in (payload[:-1], payload[: len(payload) // 2], payload[1:]):
        if fewer == payload:
            continue
        try:
            found = coder.decode(memoryview(fewer), symbols.size, table, alphabet)
        except ArtifactError:
            continue
        # The state of contexts may run out at a symbol that costs nothing there: a stream, but of other symbols. The
        # digest of a file tells.
        assert coder.name == "context"
        assert not np.array_equal(found, symbols)
    with pytest.raises(ArtifactError):
        coder.decode(memoryview(b"\xff" * 1000), 3 * CHUNK, table, alphabet)


@every_coder
@settings(deadline=None, max_examples=200)
@given(
    payload=st.binary(max_size=80),
    table=st.binary(max_size=40),
    alphabet=st.integers(1, 256),
    count=st.one_of(st.integers(0, 200), st.sampled_from([4096, 10_000, CHUNK + 1])),
)
def test_noise_is_refused_or_decodes_to_symbols(
    coder: Coder, payload: bytes, table: bytes, alphabet: int, count: int
) -> None:
    try:
        back = coder.decode(memoryview(payload), count, table, alphabet)
    except ArtifactError:
        return
    assert back.shape == (count,)
    assert back.size == 0 or int(back.max()) < alphabet


@settings(deadline=None)
@given(hnp.arrays(np.int64, st.integers(1, 256), elements=st.integers(0, 2**28)))
@every_coder
def test_any_histogram_has_a_table_and_a_price(coder: Coder, counts: NDArray[np.int64]) -> None:
    table = coder.table(counts)
    cost = coder.cost(counts, table)
    total = int(counts.sum())
    assert entropy_bits(counts) * total * (1 - 1e-9) <= cost < math.inf
    assert len(table) <= 600


def test_names() -> None:
    assert list(CODERS) == ["rans", "context", "huffman", "raw"]
    with pytest.raises(UnknownName, match="did you mean 'rans'"):
        CODERS["ran"]
