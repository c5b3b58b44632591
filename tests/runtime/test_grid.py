"""Grids: codes of uint8 that mean what the file's codes mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from attar._src.artifact.manifest import Activation
from attar._src.runtime.grid import CodedValue, Grid, grid_of_move

values = st.floats(-1e6, 1e6, width=32)


@st.composite
def activations(draw):
    bits, signed = draw(st.integers(2, 8)), draw(st.booleans())
    low = -(2 ** (bits - 1)) if signed else 0
    zero = draw(st.integers(low, low + 2**bits - 1))
    scale = draw(st.floats(2.0**-20, 2.0**10, width=32))
    return Activation(value="x", bits=bits, signed=signed, scale=scale, zero_point=zero)


@given(activation=activations(), value=values)
def test_a_code_means_the_same_in_both_forms(activation, value):
    grid = Grid.of(activation)
    code = np.rint(np.float32(value) / np.float32(activation.scale)) + activation.zero_point
    code = int(np.clip(code, activation.qmin, activation.qmax))
    assert grid.code(value) - grid.zero_point == code - activation.zero_point
    assert 0 <= grid.low <= grid.code(value) <= grid.high <= 255
    assert grid.high - grid.low == activation.qmax - activation.qmin


def test_a_scale_is_the_float32_number_however_it_is_written():
    short, exact = (Grid.of(Activation(value="x", scale=scale)) for scale in (0.1, float(np.float32(0.1))))
    assert short == exact
    assert short.scale == float(np.float32(0.1))
    assert short.holds(exact)


@given(activation=activations(), value=values, ends=st.tuples(values, values))
def test_bounds_of_codes_are_bounds_of_values(activation, value, ends):
    low, high = sorted(ends)
    grid = Grid.of(activation)
    inner = grid.between(low, high)
    assert min(max(grid.code(value), inner.low), inner.high) == grid.code(min(max(value, low), high))
    assert grid.holds(inner)
    assert grid.between(-np.inf, np.inf) == grid


def test_holds_asks_for_the_same_values():
    grid = Grid(0.5, 3, 0, 15)
    assert not grid.holds(Grid(0.5, 4, 0, 15))
    assert not grid.holds(Grid(0.25, 3, 0, 15))
    assert not grid.holds(Grid(0.5, 3, 0, 16))


@pytest.mark.parametrize(
    ("node", "moves"),
    [
        (helper.make_node("Reshape", ["x", "shape"], ["y"]), True),
        (helper.make_node("Relu", ["x"], ["y"]), False),
        (helper.make_node("Reshape", ["z", "shape"], ["y"]), False),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2]), True),
        (helper.make_node("MaxPool", ["x"], ["y", "where"], kernel_shape=[2, 2]), False),
        (helper.make_node("Pad", ["x", "pads"], ["y"]), True),
        (helper.make_node("Pad", ["x", "pads", "zero"], ["y"]), True),
        (helper.make_node("Pad", ["x", "pads", "one"], ["y"]), False),
        (helper.make_node("Pad", ["x", "pads", "unknown"], ["y"]), False),
        (helper.make_node("Pad", ["x", "pads", "one"], ["y"], mode="edge"), True),
        (helper.make_node("Concat", ["x", "x"], ["y"], axis=0), True),
        (helper.make_node("Concat", ["x", "z"], ["y"], axis=0), False),
    ],
)
def test_what_only_moves_data_keeps_the_grid(node, moves):
    grid = Grid(0.5, 3, 0, 15)
    constants = {"zero": np.float32(0), "one": np.float32(1)}
    found = grid_of_move(node, {"x": CodedValue("x_codes", grid)}, lambda name: constants.get(name))
    assert found == (grid if moves else None)


def test_a_concatenation_has_the_wider_bounds():
    codes = {"a": CodedValue("a_codes", Grid(0.5, 3, 3, 15)), "b": CodedValue("b_codes", Grid(0.5, 3, 0, 9))}
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=0)
    assert grid_of_move(node, codes, lambda _: None) == Grid(0.5, 3, 0, 15)
