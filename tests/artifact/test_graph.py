"""Graphs that are sound, and what is known of their values."""

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tests.samples import model_of

from attar._src.artifact.contents import GraphContents
from attar._src.artifact.graph import check as graph_check
from attar._src.artifact.graph import sizes, values
from attar._src.artifact.graph.guards import Sized
from attar._src.artifact.graph.strip import strip
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import GraphRecord, Port
from attar._src.core.errors import ArtifactError

X = Port(name="x", dtype="f32", shape=("batch", 3, "side", "side"), example=(2, 3, 8, 8))


def check(nodes, output, constants=(), opset=18, inputs=(X,), bound=None):
    """Check a graph of these nodes with one output."""
    contents = GraphContents("main", model_of(nodes, inputs, (output,), constants, opset), (), inputs, (output,))
    record = GraphRecord(section=0, length=1, inputs=inputs, outputs=(output,))
    return graph_check.check_graph(strip(contents), record, bound or {}, {}, Limits()).values


def out(*shape, name="y", dtype="f32"):
    return Port(name=name, dtype=dtype, shape=shape)


node = helper.make_node


def test_sizes_computed_as_exporters_write_them():
    """Shape -> Slice -> Mul -> Concat -> Reshape, and Expand by a computed shape."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "zero", "one"], ["batch"]),
        node("Slice", ["shape", "one", "last"], ["rest"]),
        node("ReduceProd", ["rest"], ["flat"], keepdims=1),
        node("Concat", ["batch", "flat"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["matrix"]),
        node("Gather", ["shape", "two"], ["side"], axis=0),
        node("Mul", ["side", "side"], ["area"]),
        node("Div", ["area", "two"], ["half"]),
        node("Unsqueeze", ["half", "zero"], ["half1"]),
        node("Concat", ["batch", "half1"], ["wide"], axis=0),
        node("Expand", ["fill", "wide"], ["zeros"]),
        node("Concat", ["matrix", "zeros"], ["y"], axis=1),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "last": np.array([2**63 - 1]),
        "two": np.array(2),
        "fill": np.float32(0),
    }
    found = check(nodes, out("batch", "columns"), constants)
    assert found["matrix"].shape == (2, 192)
    assert found["zeros"].shape == (2, 32)
    assert found["y"].shape == (2, 224)
    np.testing.assert_array_equal(found["target"].values, [2, 192])


def test_a_resize_by_a_computed_size():
    nodes = [
        node("Shape", ["x"], ["size"], start=2),
        node("Cast", ["size"], ["real"], to=1),
        node("Mul", ["real", "factor"], ["scaled"]),
        node("Floor", ["scaled"], ["floor"]),
        node("Cast", ["floor"], ["whole"], to=7),
        node("Shape", ["x"], ["front"], start=0, end=2),
        node("Concat", ["front", "whole"], ["sizes"], axis=0),
        node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    found = check(nodes, out("batch", 3, "h", "w"), {"factor": np.float32(1.5)})
    assert found["y"].shape == (2, 3, 12, 12)


def test_group_normalization_has_a_size_though_onnx_infers_none():
    nodes = [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=3)]
    constants = {"s": np.ones(3, np.float32), "b": np.zeros(3, np.float32)}
    assert check(nodes, out("batch", 3, "side", "side"), constants, opset=21)["y"].shape == (2, 3, 8, 8)


def test_a_recurrent_layer_that_gives_only_its_last_state():
    inputs = (Port(name="x", dtype="f32", shape=("time", "batch", 2), example=(5, 3, 2)),)
    nodes = [node("GRU", ["x", "w", "r"], ["", "y"], hidden_size=2)]
    bound = {name: graph_check.Bound("f32", (1, 6, 2)) for name in "wr"}
    found = check(nodes, out(1, "batch", 2), inputs=inputs, bound=bound)
    assert found["y"].shape == (1, 3, 2)


def test_a_symbol_has_one_size_everywhere():
    with pytest.raises(ArtifactError, match="example sizes"):
        check([node("Relu", ["x"], ["y"])], out("batch"), inputs=(X.model_copy(update={"example": (2, 3, 8, 9)}),))
    with pytest.raises(ArtifactError, match=r"at the example sizes; its record says f32\['side'"):
        check([node("Relu", ["x"], ["y"])], out("side", 3, "side", "side"))


FOLLOWED = [
    (node("Slice", ["a", "s", "e", "z", "p"], ["y"]), {"s": [-1], "e": [-(2**63)], "z": [0], "p": [-2]}),
    (node("Slice", ["a", "s", "e"], ["y"]), {"s": [1], "e": [2**63 - 1]}),
    (node("Gather", ["a", "i"], ["y"]), {"i": [[0, -1], [1, 1]]}),
    (node("Concat", ["a", "b", "a"], ["y"], axis=0), {"b": [5]}),
    (node("Add", ["a", "b"], ["y"]), {"b": [[1], [2]]}),
    (node("Sub", ["a", "b"], ["y"]), {"b": [7]}),
    (node("Mul", ["a", "b"], ["y"]), {"b": [-3]}),
    (node("Div", ["a", "b"], ["y"]), {"b": [2]}),
    (node("Mod", ["a", "b"], ["y"]), {"b": [3]}),
    (node("Neg", ["a"], ["y"]), {}),
    (node("Abs", ["a"], ["y"]), {}),
    (node("Min", ["a", "b", "b"], ["y"]), {"b": [0]}),
    (node("Max", ["a", "b"], ["y"]), {"b": [0]}),
    (node("Equal", ["a", "b"], ["y"]), {"b": [4]}),
    (node("Less", ["a", "b"], ["y"]), {"b": [1]}),
    (node("GreaterOrEqual", ["a", "b"], ["y"]), {"b": [1]}),
    (node("Unsqueeze", ["a", "z"], ["y"]), {"z": [0]}),
    (node("Reshape", ["a", "s"], ["y"]), {"s": [2, -1]}),
    (node("Expand", ["a", "s"], ["y"]), {"s": [2, 1]}),
    (node("ReduceProd", ["a"], ["y"], keepdims=0), {}),
    (node("ReduceSum", ["a", "z"], ["y"], keepdims=1), {"z": [0]}),
    (node("ReduceSum", ["a"], ["y"], noop_with_empty_axes=1), {}),
    (node("Cast", ["a"], ["y"], to=1), {}),
    (node("Cast", ["a"], ["y"], to=9), {}),
    (node("Where", ["c", "a", "b"], ["y"]), {"c": [True, False, True, True], "b": [9]}),
    (node("Range", ["b", "s", "e"], ["y"]), {"b": 7, "s": -4, "e": -3}),
    (node("ConstantOfShape", ["s"], ["y"], value=numpy_helper.from_array(np.array([7]))), {"s": [3]}),
    (node("Shape", ["a"], ["y"], start=-5, end=9), {}),
    (node("Size", ["a"], ["y"]), {}),
    (node("Identity", ["a"], ["y"]), {}),
]


@pytest.mark.parametrize(("operator", "constants"), FOLLOWED, ids=[item[0].op_type for item in FOLLOWED])
def test_followed_values_are_what_onnx_says(operator, constants):
    arrays = {name: np.asarray(value) for name, value in {"a": [4, -3, 0, 7], **constants}.items()}
    known = {
        name: Sized(helper.np_dtype_to_tensor_dtype(a.dtype), a.shape, a, fixed=True) for name, a in arrays.items()
    }
    sizes.size_nodes([operator], known, 18, Limits(), section="graph main")
    model = helper.make_model(
        helper.make_graph(
            [operator],
            "net",
            [helper.make_tensor_value_info(n, known[n].type, a.shape) for n, a in arrays.items()],
            [helper.make_tensor_value_info("y", known["y"].type, None)],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    (expected,) = ReferenceEvaluator(model).run(None, arrays)
    assert known["y"].values is not None
    assert known["y"].values.dtype == expected.dtype
    np.testing.assert_array_equal(known["y"].values, expected)
    assert known["y"].shape == expected.shape
    assert known["y"].fixed is (operator.op_type not in ("Shape", "Size"))


def test_what_depends_on_sizes_is_not_fixed():
    known = {"x": Sized(onnx.TensorProto.FLOAT, (4, 2)), "one": Sized(7, (1,), np.array([1]), fixed=True)}
    nodes = [node("Shape", ["x"], ["s"]), node("Add", ["s", "one"], ["t"]), node("Identity", ["one"], ["u"])]
    sizes.size_nodes(nodes, known, 18, Limits(), section="graph main")
    np.testing.assert_array_equal(known["t"].values, [5, 3])
    assert not known["t"].fixed
    assert known["u"].fixed


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_slices_are_python_slices(data):
    size = data.draw(st.integers(0, 6))
    limits = st.one_of(st.integers(-8, 8), st.sampled_from([2**63 - 1, -(2**63)]))
    start, stop = data.draw(limits), data.draw(limits)
    step = data.draw(st.sampled_from([-3, -1, 1, 2]))
    array = np.arange(size)
    known = {"a": Sized(7, (size,), array, fixed=True)}
    for name, number in {"s": start, "e": stop, "z": 0, "p": step}.items():
        known[name] = Sized(7, (1,), np.array([number]), fixed=True)
    operator = node("Slice", ["a", "s", "e", "z", "p"], ["y"])
    sizes.size_nodes([operator], known, 18, Limits(), section="graph main")
    if step < 0 and start < -size:
        expected = (
            array[:1] if stop < -size else array[:0]
        )  # the start is clamped to the first element, unlike Python's
    else:
        expected = array[start : None if step < 0 and stop < -size else stop : step]
    np.testing.assert_array_equal(known["y"].values, expected)
    assert known["y"].shape == expected.shape


def test_many_elements_are_not_followed():
    known = {"x": Sized(7, (65,)), "a": Sized(7, (64,), np.arange(64), fixed=True)}
    nodes = [node("Concat", ["a", "a"], ["b"], axis=0), node("Neg", ["x"], ["c"]), node("Neg", ["a"], ["d"])]
    sizes.size_nodes(nodes, known, 18, Limits(), section="graph main")
    assert known["b"].values is None
    assert known["c"].values is None
    assert known["d"].values is not None
    assert math.prod(known["d"].shape) == values.SMALL_VALUE
