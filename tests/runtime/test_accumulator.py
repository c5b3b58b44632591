"""Sums of integer products: biases in whole steps are integers, others are refused, and nothing leaves 32 bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.runtime.accumulator import Accumulator, accumulator_of, neighbours
from attar._src.runtime.grid import Grid
from attar._src.runtime.weights import Int8Weight

scales = st.floats(2.0**-12, 4.0, width=32)
SIGNALLING = np.array([0x7F800001], np.uint32).view(np.float32)  # NaN that warns when it is cast
MEANINGS = [
    "single",  # step and product in float32
    "double",  # both in float64
    "mixed",  # the step in float32, the product in float64
]


def weight_of(*scale, inputs=5):
    values = np.array(scale, np.float32)
    return Int8Weight(np.full((max(len(scale), 3), inputs), 7, np.int8), values, 0 if len(scale) > 1 else None)


def grid_of(scale):
    return Grid(float(np.float32(scale)), 100, 0, 255)


@given(
    scale=scales,
    channels=st.one_of(st.tuples(scales), st.tuples(scales, scales, scales)),
    steps=st.tuples(*[st.integers(-(2**30), 2**30)] * 3),
    meaning=st.sampled_from(MEANINGS),
)
def test_whole_steps_are_what_they_were_however_they_were_rounded(scale, channels, steps, meaning):
    weight, grid = weight_of(*channels), grid_of(scale)
    step = weight.scale.astype(np.float64) * scale
    if meaning != "double":
        step = step.astype(np.float32)
    product = np.array(steps, np.float32 if meaning == "single" else np.float64) * step
    found = accumulator_of(weight, grid, 0, product.astype(np.float32))
    assert isinstance(found, Accumulator)
    assert found.bias.dtype == np.int32
    # Whole steps of more than 22 bits are rounded by float32 before they come here.
    exact = np.abs(steps) < 2**20
    np.testing.assert_array_equal(found.bias[exact], np.array(steps)[exact])
    np.testing.assert_allclose(found.bias * found.step, product, rtol=2.0**-21)


@given(scale=scales, off=st.floats(0.001, 0.999), whole=st.integers(-2000, 2000))
def test_a_bias_between_two_steps_is_refused(scale, off, whole):
    bias = np.array([0, (whole + off) * scale * 0.25, 0], np.float32)
    assert "whole steps" in accumulator_of(weight_of(0.25), grid_of(scale), 0, bias)


@pytest.mark.parametrize("bias", [[np.inf], [np.nan], SIGNALLING, [-3e38], [2.0**31]])
def test_a_bias_that_is_no_int32_is_refused(bias):
    assert "32 bits" in accumulator_of(weight_of(1.0), grid_of(1.0), 0, np.repeat(np.asarray(bias, np.float32), 3))


def test_the_largest_sum_counts():
    # Five products of 7 and 155 at most.
    for bias, fits in ((2**31 - 2**13, True), (2**31 - 2**10, False)):
        assert (
            isinstance(accumulator_of(weight_of(1.0), grid_of(1.0), 0, np.full(3, bias, np.float32)), Accumulator)
            == fits
        )
    many = Int8Weight(np.broadcast_to(np.int8(127), (3, 2**17)), np.ones(1, np.float32), None)
    assert "32 bits" in accumulator_of(many, grid_of(1.0), 0, None)


@pytest.mark.parametrize(
    "bias", [np.zeros((3, 1), np.float32), np.zeros((), np.float32), np.zeros(4, np.float32), np.zeros(3)]
)
def test_a_bias_is_one_float32_for_each_output_channel(bias):
    assert "each output channel" in accumulator_of(weight_of(1.0), grid_of(1.0), 0, bias)


def test_a_row_is_a_bias_and_none_is_none():
    assert accumulator_of(weight_of(1.0), grid_of(0.5), 0, np.full((1, 3), 1.5, np.float32)).bias.tolist() == [3, 3, 3]
    assert accumulator_of(weight_of(1.0), grid_of(0.5), 0, None).bias is None


@pytest.mark.parametrize("scale", [1e-38, 3e38])
def test_a_step_that_is_no_normal_number_is_refused(scale):
    assert "normal" in accumulator_of(weight_of(scale), grid_of(scale), 0, None)


def test_pairs_of_a_convolution_are_those_of_channels_in_fours():
    three = np.arange(1, 7, dtype=np.int8).reshape(1, 3, 1, 2)  # channel by channel: 1 2, 3 4, 5 6
    assert neighbours(three, 0).tolist() == [[[1, 3], [5, 0], [2, 4], [6, 0]]]
    one_cell = three[..., :1]
    assert neighbours(one_cell, 0).tolist() == [[[1, 3], [5, 0]]]
    grouped = np.arange(1, 13, dtype=np.int8).reshape(2, 3, 1, 2)
    assert neighbours(grouped, 0, 2)[0].tolist() == [[1, 3], [5, 2], [4, 6]]
