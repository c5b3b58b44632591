"""Dynamic rounding equals the runtime's, code by code."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto, helper

from attar._src.runtime.engine import Engine
from attar._src.work.dynamic_rounding import DynamicRound, dynamic_codes


@pytest.fixture(scope="module")
def engine():
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])],
        "quantize",
        [info("x", TensorProto.FLOAT, None)],
        [info("q", TensorProto.UINT8, None), info("s", TensorProto.FLOAT, []), info("z", TensorProto.UINT8, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Engine(model.SerializeToString(), threads=1)


# Ranges below 2^-118 have a scale that is no normal number.
ELEMENTS = st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda x: x == 0 or abs(x) > 2.0**-100)


@given(x=arrays(np.float32, array_shapes(max_dims=3, max_side=9), elements=ELEMENTS))
def test_codes_scale_and_zero_point_are_those_of_the_runtime(engine, x):
    wanted = engine.run({"x": x})
    for got, want in zip(dynamic_codes(torch.from_numpy(x)), wanted, strict=True):
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("magnitude", [1e-20, 1e-3, 1.0, 1e5])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.3, 40.0])
def test_codes_of_many_values(engine, rng, magnitude, shift):
    x = (magnitude * (rng.normal(size=(64, 129)) + shift)).astype(np.float32)
    for got, want in zip(dynamic_codes(torch.from_numpy(x)), engine.run({"x": x}), strict=True):
        np.testing.assert_array_equal(got.numpy(), want)


def test_ties_go_to_the_even_code():
    # The scale is 2: 1, 3 and 5 lie between two codes.
    x = torch.tensor([0.0, 1.0, 3.0, 5.0, 510.0])
    codes, scale, zero = dynamic_codes(x)
    assert (codes.tolist(), scale, zero) == ([0, 0, 2, 2, 255], 2, 0)
    assert DynamicRound()(x).tolist() == [0, 0, 4, 4, 510]


def test_zero_is_on_the_grid():
    for x in ([1.0, 2.0], [-3.0, -1.0], [-1.0, 0.0, 3.0], [0.0], [-0.0]):
        assert DynamicRound()(torch.tensor([*x, 0.0]))[-1] == 0


def test_types_and_empty_tensors_pass():
    x = torch.randn(4, 5, dtype=torch.float64)
    rounded = DynamicRound()(x)
    assert rounded.dtype == torch.float64
    assert (rounded - x).abs().max() <= (x.max() - x.min()) / 255
    assert DynamicRound()(torch.zeros(0, 3)).shape == (0, 3)
    assert torch.equal(DynamicRound()(torch.zeros(3)), torch.zeros(3))
