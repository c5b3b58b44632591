"""Tensors through streams and back, of every kind and coder."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import strategies
from tests.samples import quantized, relu

from attar._src.artifact.packing import symbol_histogram
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.streams import CodeArray, split
from attar._src.artifact.writer import pack
from attar._src.coding.registry import CODERS
from attar._src.core.float16 import round_up
from attar._src.core.scheme import PerChannel, PerTensor, Scheme
from attar._src.core.tensors import Codebook, Dense, Quantized, Sparse


def same(found, expected):
    """Whether two tensors are the same to the bit, part by part."""
    assert type(found) is type(expected)
    if isinstance(expected, Sparse):
        np.testing.assert_array_equal(found.mask, expected.mask)
        same(found.values, expected.values)
        return
    for name in expected.__dataclass_fields__:
        mine, theirs = getattr(found, name), getattr(expected, name)
        if isinstance(theirs, np.ndarray):
            assert mine.dtype == theirs.dtype
            assert mine.shape == theirs.shape
            assert mine.tobytes() == theirs.tobytes()  # NaN and the sign of zero included
        else:
            assert mine == theirs


@settings(max_examples=300, deadline=None)
@given(strategies.tensors)
def test_every_tensor_comes_back_to_the_bit(tensor):
    same(open_artifact(pack(relu({"a": tensor}))).tensor("a"), tensor)


@pytest.mark.parametrize("coder", ["rans", "huffman", "raw"])
@settings(max_examples=50, deadline=None)
@given(tensor=strategies.quantized())
def test_with_every_coder(tensor, coder):
    same(open_artifact(pack(relu({"a": tensor, "b": tensor}), coder=coder)).tensor("b"), tensor)


def test_arrays_that_are_not_contiguous(rng):
    codes = rng.integers(-7, 8, (6, 8)).astype(np.int8)
    scale = np.ones(8, np.float32)
    tensor = Quantized(codes.T[:, ::2], scale, Scheme(bits=4, granularity=PerChannel()))
    plain = Dense(rng.normal(size=(6, 8)).astype(np.float32)[::-2, ::3].T)
    artifact = open_artifact(pack(relu({"a": tensor, "b": plain})))
    np.testing.assert_array_equal(artifact.tensor("a").codes, tensor.codes)
    np.testing.assert_array_equal(artifact.tensor("b").data, plain.data)


def test_the_end_codes_of_each_grid():
    for bits in range(1, 9):
        for symmetric in (True, False):
            scheme = Scheme(bits=bits, symmetric=symmetric, narrow_range=False, granularity=PerTensor())
            codes = np.array([scheme.qmin, scheme.qmax], scheme.code_dtype)
            zero_point = None if symmetric else np.array([scheme.qmax], np.uint8)
            tensor = Quantized(codes, np.ones(1, np.float32), scheme, zero_point)
            (piece,) = [piece for piece in split(tensor) if isinstance(piece, CodeArray)]
            np.testing.assert_array_equal(piece.symbols, [0, scheme.levels - 1])
            same(open_artifact(pack(relu({"a": tensor}))).tensor("a"), tensor)


def test_a_large_tensor_takes_its_entropy(rng):
    codes = np.clip(np.rint(rng.normal(scale=2, size=(64, 4096))), -7, 7).astype(np.int8)
    tensor = Quantized(codes, np.ones(64, np.float32), Scheme(bits=4))
    shares = np.unique(codes, return_counts=True)[1] / codes.size
    entropy = -(shares * np.log2(shares)).sum() * codes.size / 8
    artifact = open_artifact(pack(relu({"a": tensor})))
    (record,) = artifact.manifest.tensors
    assert record.value.codes.length < 1.005 * entropy
    same(artifact.tensor("a", threads=2), tensor)


def test_raw_is_chosen_where_it_is_smaller(rng):
    codes = rng.integers(0, 256, 40).astype(np.uint8)
    points = np.arange(256, dtype=np.float32)
    one = np.ones(1, np.float32)
    (record,) = open_artifact(pack(relu({"a": Codebook(codes, points, one, one, PerTensor())}))).manifest.tensors
    assert record.value.codes.coder == "raw"
    assert record.value.codes.length == 40


def test_a_table_that_saves_less_than_it_takes_is_left_out():
    codes = np.array([4, 0, 1, 1, -1, 1, 1, -1, -1, -1, 2, 2, 1, 2, 2, 1, 0, 2, 1, 1], np.int8)
    symbols = (codes + 7).astype(np.uint8)
    rans = CODERS["rans"]
    table = rans.table(symbol_histogram(symbols, 15))
    payload = rans.encode(symbols, table, 15)
    assert len(payload) < 10 < len(payload) + len(table)  # or the example is none
    tensor = Quantized(codes, np.ones(1, np.float32), Scheme(bits=4, granularity=PerTensor()))
    manifest = open_artifact(pack(relu({"a": tensor}))).manifest
    assert manifest.tables == ()
    assert manifest.tensors[0].value.codes.coder == "raw"


def test_histograms_of_many_symbols(rng, monkeypatch):
    monkeypatch.setattr("attar._src.artifact.packing._CHUNK", 100)
    symbols = rng.integers(0, 5, 1050).astype(np.uint8)
    np.testing.assert_array_equal(symbol_histogram(symbols, 7), np.bincount(symbols, minlength=7))


# Scales that are coded, since format 1.4.


def with_scales(rng, scale, dtype="f32"):
    """A tensor of as many rows as scales, in a file."""
    tensor = quantized(rng, (len(scale), 3))
    tensor = replace(tensor, scale=np.array(scale, np.float32), scale_dtype=dtype)
    artifact = open_artifact(pack(relu({"a": tensor})))
    return tensor, artifact, artifact.manifest.tensors[0].value.scale


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("octaves", [1, 3, 9])
def test_scales_of_few_digits_take_few_bits_and_come_back_exactly(rng, dtype, octaves):
    scale = round_up((2.0 ** rng.uniform(-octaves, 0, 200)).astype(np.float32))
    tensor, artifact, record = with_scales(rng, scale, dtype)
    found = artifact.tensor("a")
    np.testing.assert_array_equal(found.scale, tensor.scale)
    np.testing.assert_array_equal(found.dense(), tensor.dense())
    assert (found.scale_dtype, record.dtype) == (dtype, dtype)
    levels = record.integers.levels
    assert levels & (levels - 1) == 0  # a power of two
    assert levels <= 2 * 64 * octaves
    assert record.length <= 200 * (6 + octaves.bit_length()) / 8
    artifact.verify()


@pytest.mark.parametrize("count", [1, 500])
def test_equal_scales_take_nothing(rng, count):
    _, artifact, record = with_scales(rng, [0.3] * count)
    assert record.length == (4 if count == 1 else 0)  # one scale takes less than the record of its coding
    np.testing.assert_array_equal(artifact.tensor("a").scale, np.full(count, np.float32(0.3)))


@given(st.lists(st.floats(2.0**-126, 2.0**127, width=32), min_size=1, max_size=30))
def test_any_scales_come_back_exactly(scale):
    tensor, artifact, _ = with_scales(np.random.default_rng(0), scale)
    np.testing.assert_array_equal(artifact.tensor("a").scale, tensor.scale)


def test_offsets_that_are_negative_are_not_coded(rng):
    values = round_up((2.0 ** rng.uniform(-2, 0, 100)).astype(np.float32))
    codes, points = rng.integers(0, 4, (100, 3)).astype(np.uint8), np.arange(4, dtype=np.float32)
    tensor = Codebook(codes, points, values, -values, PerChannel())
    artifact = open_artifact(pack(relu({"a": tensor})))
    value = artifact.manifest.tensors[0].value
    assert (value.scale.integers is None, value.offset.integers is None) == (False, True)
    np.testing.assert_array_equal(artifact.tensor("a").dense(), tensor.dense())
