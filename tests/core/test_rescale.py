from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.core.rescale import rescale
from attar._src.core.scheme import PerBlock, PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import Codebook, Dense, Quantized, Sparse, round_to_grid

SHAPE = (4, 6)


def _grid(granularity, *, symmetric=True, narrow=True, bits=4, seed=0):
    values = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    scheme = Scheme(bits=bits, symmetric=symmetric, narrow_range=narrow, granularity=granularity)
    scale = np.full(granularity.count(SHAPE), 0.25, np.float32)
    scale *= np.linspace(1, 2, len(scale)).astype(np.float32)
    zero = None if symmetric else np.full(len(scale), 7, np.uint8)
    return round_to_grid(values, scale, zero, scheme)


@given(
    granularity=st.sampled_from(
        [PerTensor(), PerChannel(), PerGroup(size=4), PerGroup(size=6), PerBlock(sizes=(1, 3))]
    ),
    factor=st.lists(st.floats(-4, 4, width=32), min_size=4, max_size=4),
)
def test_codes_keep_to_their_grid_and_values_take_the_factor(granularity, factor):
    tensor, factors = _grid(granularity), np.array(factor, np.float64)
    scaled = rescale(tensor, factors, 0)
    assert isinstance(scaled, Quantized)
    assert (np.abs(scaled.codes) <= np.abs(tensor.codes)).all()
    np.testing.assert_allclose(scaled.dense(), tensor.dense() * factors[:, None], rtol=1e-6, atol=1e-30)


def test_a_channel_with_factor_zero_is_all_zero_on_a_sound_grid():
    scaled = rescale(_grid(PerChannel()), np.array([1.0, 0.0, -1.0, 2.0]), 0)
    assert isinstance(scaled, Quantized)
    assert not scaled.codes[1].any()
    assert (scaled.scale > 0).all()


@pytest.mark.parametrize(
    ("tensor", "factor"),
    [
        (_grid(PerBucket(size=5)), [1, 1, 1, 1]),
        (_grid(PerChannel(axis=1)), [1, 1, 1, 1]),
        (_grid(PerChannel(), narrow=False), [1, -1, 1, 1]),
        (_grid(PerChannel(), symmetric=False), [1, -1, 1, 1]),
        (_grid(PerChannel(), symmetric=False), [1, 0, 1, 1]),
        (_grid(PerGroup(axis=1, size=2)), [1, 1, 1, 1]),
        (_grid(PerBlock(sizes=(2, 3))), [1, 1, 1, 1]),
    ],
)
def test_what_cannot_follow_is_refused(tensor, factor):
    assert rescale(tensor, np.array(factor, np.float64), 0) is None


def test_scales_of_16_bits_are_of_32_once_they_took_a_factor():
    factor = np.array([1.0, 0.3, 0.7, 1.1])
    short = replace(_grid(PerTensor()), scale_dtype="bf16")
    scaled = rescale(short, factor, 0)
    assert (short.scale_dtype, scaled.scale_dtype) == ("bf16", "f32")
    np.testing.assert_array_equal(scaled.scale, (0.25 * factor).astype(np.float32))
    points, one = np.array([0, 1], np.float32), np.ones(4, np.float32)
    book = Codebook(np.zeros(SHAPE, np.uint8), points, one, one, PerChannel(), "f16")
    assert rescale(book, factor, 0).scale_dtype == "f32"


def test_asymmetric_codes_follow_positive_factors():
    tensor = _grid(PerChannel(), symmetric=False)
    scaled = rescale(tensor, np.array([1.0, 2.0, 3.0, 4.0]), 0)
    np.testing.assert_allclose(scaled.dense(), tensor.dense() * np.array([[1], [2], [3], [4]]), rtol=1e-6)


def test_floating_values_sparse_values_and_codebooks_take_any_factor():
    factor = np.array([1.0, -2.0, 0.0, 0.5])
    values = np.arange(24, dtype=np.float32).reshape(SHAPE)
    np.testing.assert_array_equal(rescale(Dense(values), factor, 0).dense(), values * factor[:, None])
    columns = np.linspace(-1, 1, 6)
    np.testing.assert_allclose(rescale(Dense(values), columns, 1).dense(), values * columns, rtol=1e-6)
    mask = values % 3 == 0
    sparse = Sparse(mask, Dense(values[mask]))
    np.testing.assert_array_equal(rescale(sparse, factor, 0).dense(), sparse.dense() * factor[:, None])
    codebook = Codebook(
        codes=(values % 4).astype(np.uint8),
        points=np.array([0, 0.1, 0.7, 1], np.float32),
        scale=np.array([1, 2, 3, 4], np.float32),
        offset=np.array([-1, 0, 1, 2], np.float32),
        granularity=PerChannel(),
    )
    np.testing.assert_allclose(rescale(codebook, factor, 0).dense(), codebook.dense() * factor[:, None], atol=1e-6)
