"""Tensors through streams and back, of every kind and coder."""

import numpy as np
import pytest
from hypothesis import given, settings
from tests import strategies
from tests.samples import relu

from attar._src.artifact.packing import symbol_histogram
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.streams import CodeArray, raw_bytes, split
from attar._src.artifact.writer import pack
from attar._src.coding.registry import CODERS
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


@pytest.mark.parametrize(
    ("count", "alphabet", "size"), [(0, 16, 0), (3, 16, 2), (5, 1, 0), (5, 2, 1), (3, 15, 2), (9, 256, 9)]
)
def test_bytes_of_raw_symbols(count, alphabet, size):
    assert raw_bytes(count, alphabet) == size


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
