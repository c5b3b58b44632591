"""Compressed tensors and the one dequantize equation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import strategies

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerBucket, PerChannel, PerTensor, Scheme
from attar._src.core.tensors import DTYPES, Codebook, Dense, Quantized, Sparse, dequantize, round_to_grid


@given(strategies.quantized())
def test_dequantize_is_scale_times_code_less_zero_point(tensor):
    index = np.broadcast_to(tensor.scheme.granularity.index(tensor.shape), tensor.shape)
    found = tensor.dense()
    assert found.dtype == np.float32
    assert found.shape == tensor.shape
    for place in np.ndindex(tensor.shape):
        zero = 0 if tensor.zero_point is None else int(tensor.zero_point[index[place]])
        assert found[place] == np.float32(int(tensor.codes[place]) - zero) * tensor.scale[index[place]]


@given(strategies.quantized())
def test_values_on_the_grid_come_back_exactly(tensor):
    again = round_to_grid(tensor.dense(), tensor.scale, tensor.zero_point, tensor.scheme)
    np.testing.assert_array_equal(again.codes, tensor.codes)
    np.testing.assert_array_equal(again.dense(), tensor.dense())


@given(st.data())
def test_rounding_is_to_the_nearest_point(data):
    values = data.draw(strategies.arrays(data.draw(strategies.shapes), st.floats(-100, 100, width=32)))
    scheme = data.draw(strategies.schemes(values.shape))
    count = scheme.granularity.count(values.shape)
    scale = data.draw(strategies.arrays((count,), st.floats(np.float32(0.01), 10, width=32)))
    zero_point = None if scheme.symmetric else np.full(count, scheme.qmax // 2, np.uint8)
    found = round_to_grid(values, scale, zero_point, scheme)
    step = np.broadcast_to(scale[scheme.granularity.index(values.shape)], values.shape)
    zero = 0 if zero_point is None else int(scheme.qmax // 2)
    low, high = (scheme.qmin - zero) * step, (scheme.qmax - zero) * step
    error = np.abs(found.dense() - np.clip(values, low, high))
    assert (error <= step * (0.5 + 1e-4)).all()


def test_rounding_is_half_to_even():
    scheme = Scheme(bits=8, granularity=PerTensor())
    found = round_to_grid(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), np.ones(1, np.float32), None, scheme)
    np.testing.assert_array_equal(found.codes, [0, 2, 2, 0, -2])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_cannot_be_quantized(value):
    values = np.array([1.0, value], np.float32)
    with pytest.raises(SpecError, match="1 of 2 values are not finite"):
        round_to_grid(values, np.ones(1, np.float32), None, Scheme(bits=4, granularity=PerTensor()))


@given(strategies.codebooks())
def test_a_codebook_is_scale_times_point_plus_offset(tensor):
    index = np.broadcast_to(tensor.granularity.index(tensor.shape), tensor.shape)
    expected = tensor.scale[index] * tensor.points[tensor.codes] + tensor.offset[index]
    assert tensor.dense().dtype == np.float32
    np.testing.assert_array_equal(tensor.dense(), expected)


@given(strategies.sparse())
def test_a_sparse_tensor_is_zero_off_its_mask(tensor):
    found = tensor.dense()
    assert found.shape == tensor.mask.shape
    np.testing.assert_array_equal(found[tensor.mask], tensor.values.dense())
    assert not found[~tensor.mask].any()


@given(strategies.dense())
def test_floats_are_dense_as_float32_and_others_as_they_are(tensor):
    found = tensor.dense()
    assert found.shape == tensor.shape
    assert found.dtype == (np.float32 if tensor.dtype in ("f16", "bf16") else DTYPES[tensor.dtype])


def test_bf16_is_the_upper_half_of_float32():
    data = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], np.uint16)
    np.testing.assert_array_equal(Dense(data, "bf16").dense(), [1.0, -2.0, np.inf, np.float32(2.0**-133)])


def test_a_product_too_large_is_an_infinity_without_a_warning():
    codes = np.array([127, -127], np.int8)
    found = dequantize(codes, np.array([3e38], np.float32), None, PerTensor())
    np.testing.assert_array_equal(found, [np.inf, -np.inf])


SCHEME = Scheme(bits=4, granularity=PerChannel())
CODES = np.zeros((2, 3), np.int8)
SCALE = np.ones(2, np.float32)
ASYMMETRIC = Scheme(bits=4, symmetric=False, granularity=PerChannel())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Dense(np.zeros(2, np.float64)), "float64"),
        (lambda: Dense(np.zeros(2, np.float32), "f64"), "'f64'"),
        (lambda: Quantized(CODES, SCALE[:1], SCHEME), "2 float32 scales"),
        (lambda: Quantized(CODES, SCALE.astype(np.float64), SCHEME), "2 float32 scales"),
        (lambda: Quantized(CODES.astype(np.uint8), SCALE, SCHEME), "codes of int8"),
        (lambda: Quantized(CODES, SCALE, SCHEME, np.zeros(2, np.uint8)), "zero points belong"),
        (lambda: Quantized(CODES.astype(np.uint8), SCALE, ASYMMETRIC), "zero points belong"),
        (lambda: Quantized(CODES.astype(np.uint8), SCALE, ASYMMETRIC, np.full(2, 16, np.uint8)), r"0\.\.15"),
        (lambda: Quantized(CODES, SCALE * 0, SCHEME), "finite and positive"),
        (lambda: Quantized(CODES, SCALE * np.float32(np.nan), SCHEME), "finite and positive"),
        (lambda: Quantized(CODES + np.int8(8), SCALE, SCHEME), r"outside -7\.\.7"),
        (lambda: Quantized(CODES, SCALE, SCHEME, scale_dtype="i16"), "f32, f16 or bf16, not as 'i16'"),
        (lambda: Quantized(CODES, SCALE * np.float32(0.1), SCHEME, scale_dtype="f16"), "2 of 2 scales are not exact"),
        (lambda: Quantized(CODES, SCALE * np.float32(2.0**20), SCHEME, scale_dtype="f16"), "2 of 2 scales"),
        (lambda: codebook(offset=np.array([0.1], np.float32), scale_dtype="bf16"), "1 of 1 scales are not exact"),
        (lambda: codebook(points=np.zeros(0, np.float32)), "1 to 256 points"),
        (lambda: codebook(points=np.zeros(257, np.float32)), "1 to 256 points"),
        (lambda: codebook(points=np.array([np.inf], np.float32)), "finite float32"),
        (lambda: codebook(scale=np.zeros(2, np.float32)), "1 finite float32 values of scale"),
        (lambda: codebook(offset=np.array([np.nan], np.float32)), "1 finite float32 values of offset"),
        (lambda: codebook(codes=np.full(3, 2, np.uint8)), "number of points, 2"),
        (lambda: Sparse(np.ones(3, np.bool_), Dense(np.ones(2, np.float32))), "3 set elements"),
        (lambda: Sparse(np.ones(2, np.uint8), Dense(np.ones(2, np.float32))), "2 set elements"),
    ],
)
def test_parts_that_do_not_fit(make, match):
    with pytest.raises(SpecError, match=match):
        make()


def codebook(**fields):
    parts = {
        "codes": np.zeros(3, np.uint8),
        "points": np.zeros(2, np.float32),
        "scale": np.zeros(1, np.float32),
        "offset": np.zeros(1, np.float32),
        "granularity": PerBucket(size=4),
    }
    return Codebook(**parts | fields)
