"""Grids and granularities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tests import strategies

from attar._src.core.errors import SpecError
from attar._src.core.scheme import Granularity, PerBlock, PerBucket, PerChannel, PerGroup, PerTensor, Scheme


@pytest.mark.parametrize(
    ("bits", "symmetric", "narrow", "qmin", "qmax"),
    [
        (8, True, True, -127, 127),
        (8, True, False, -128, 127),
        (8, False, True, 0, 255),
        (4, True, True, -7, 7),
        (2, True, True, -1, 1),
        (2, True, False, -2, 1),
        (1, True, True, -1, 0),
        (1, True, False, -1, 0),
        (1, False, False, 0, 1),
    ],
)
def test_the_ends_of_a_grid(bits, symmetric, narrow, qmin, qmax):
    scheme = Scheme(bits=bits, symmetric=symmetric, narrow_range=narrow)
    assert (scheme.qmin, scheme.qmax, scheme.levels) == (qmin, qmax, qmax - qmin + 1)
    assert scheme.code_dtype == (np.int8 if symmetric else np.uint8)


@pytest.mark.parametrize("bits", [0, 9, 4.0, "4", None])
def test_bits_that_are_none(bits):
    with pytest.raises(ValidationError):
        Scheme(bits=bits)


@given(st.data())
def test_an_index_points_every_element_to_one_of_count_parameters(data):
    shape = data.draw(strategies.shapes)
    granularity = data.draw(strategies.granularities(shape))
    count = granularity.count(shape)
    index = np.broadcast_to(granularity.index(shape), shape)
    assert index.dtype == np.int64
    if index.size:
        assert index.min() == 0
        assert index.max() == count - 1
        assert np.unique(index).size == count


@given(st.data())
def test_a_group_is_a_run_inside_one_channel(data):
    shape = data.draw(strategies.shapes.filter(lambda shape: len(shape) > 0 and math.prod(shape) > 0))
    axis = data.draw(st.integers(0, len(shape) - 1))
    size = data.draw(st.integers(1, 9))
    index = PerGroup(axis=axis, size=size).index(shape)
    rows = np.moveaxis(index, axis, 0).reshape(shape[axis], -1)
    groups = -(-rows.shape[1] // size)
    expected = np.arange(shape[axis])[:, None] * groups + np.arange(rows.shape[1]) // size
    np.testing.assert_array_equal(rows, expected)


def test_the_table_of_the_module_by_example():
    shape = (2, 3, 4)
    assert PerTensor().count(shape) == 1
    assert PerChannel(axis=1).count(shape) == 3
    assert PerGroup(axis=0, size=5).count(shape) == 2 * 3
    assert PerBucket(size=5).count(shape) == 5
    np.testing.assert_array_equal(PerChannel(axis=1).index(shape).ravel(), [0, 1, 2])
    np.testing.assert_array_equal(PerBucket(size=5).index((3, 4)), [[0] * 4, [0, 1, 1, 1], [1, 1, 2, 2]])


def test_tensors_without_elements():
    assert PerTensor().count((0,)) == 1
    assert PerChannel(axis=0).count((0, 3)) == 0
    assert PerGroup(axis=1, size=2).count((0, 3)) == 0
    assert PerBucket(size=4).count((0,)) == 0
    assert PerGroup(axis=0, size=2).index((3, 0)).shape == (3, 0)


@pytest.mark.parametrize("granularity", [PerChannel(axis=2), PerGroup(axis=2, size=1)])
def test_an_axis_that_is_not_there(granularity):
    with pytest.raises(SpecError, match=r"scales along axis 2 do not fit a tensor of shape \(3, 4\); use axis < 2"):
        granularity.count((3, 4))


@given(st.data())
def test_json_both_ways(data):
    scheme = data.draw(strategies.schemes(data.draw(strategies.shapes)))
    assert Scheme.model_validate_json(scheme.model_dump_json()) == scheme
    granularity = TypeAdapter(Granularity).validate_json(scheme.granularity.model_dump_json())
    assert granularity == scheme.granularity


def test_blocks_number_the_channels_of_a_grouped_transposed_convolution():
    index = np.broadcast_to(PerBlock(sizes=(4, 1, 2)).index((8, 3, 2)), (8, 3, 2))
    for group, channel in np.ndindex(2, 3):
        assert set(index[4 * group : 4 * group + 4, channel].flat) == {3 * group + channel}


@pytest.mark.parametrize(("sizes", "shape"), [((2, 1), (4, 2, 2)), ((3, 1), (4, 2)), ((8, 2), (4, 2))])
def test_blocks_that_do_not_fit(sizes, shape):
    with pytest.raises(SpecError, match="one size for each axis, which divides it"):
        PerBlock(sizes=sizes).count(shape)
