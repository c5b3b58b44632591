"""Rewrites: the same function, in operators that have integer kernels."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from attar._src.runtime.grid import Grid
from attar._src.runtime.rewrite import rewrite


def model(nodes, constants=(), *, rank=4, opset=18):
    """Nodes from ``x`` to ``y``, shapes open but for the rank of x."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [f"n{i}" for i in range(rank)])
    y = onnx.ValueInfoProto(name="y")
    arrays = [numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in dict(constants).items()]
    graph = helper.make_graph(nodes, "net", [x], [y], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def same(before, after, rng, rank=4):
    x = rng.normal(size=(2, 3, 7, 5, 4)[:rank]).astype(np.float32)
    want, got = (ReferenceEvaluator(item).run(None, {"x": x})[0] for item in (before, after))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    return [node.op_type for node in after.graph.node]


@pytest.mark.parametrize(
    ("rank", "axes", "keep"), [(4, [2, 3], 0), (4, [2, 3], 1), (4, [-1, -2], 0), (3, [2], 0), (5, [4, 2, 3], 1)]
)
def test_a_mean_over_space_is_a_pool(rng, rank, axes, keep):
    before = model([helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=keep)], {"axes": axes}, rank=rank)
    found = same(before, rewrite(before, {}, {}), rng, rank)
    assert found == (["GlobalAveragePool"] if keep else ["GlobalAveragePool", "Flatten"])


def test_axes_may_be_an_attribute(rng):
    before = model([helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)], opset=13)
    assert "GlobalAveragePool" in same(before, rewrite(before, {}, {}), rng)


@pytest.mark.parametrize(("rank", "axes"), [(4, [3]), (4, [1, 2, 3]), (2, [1]), (4, [0, 2, 3])])
def test_another_mean_stays(rng, rank, axes):
    before = model([helper.make_node("ReduceMean", ["x", "axes"], ["y"])], {"axes": axes}, rank=rank)
    assert same(before, rewrite(before, {}, {}), rng, rank) == ["ReduceMean"]


def test_a_mean_of_an_unknown_rank_or_over_everything_stays():
    everything = model([helper.make_node("ReduceMean", ["x"], ["y"])])
    assert [node.op_type for node in rewrite(everything, {}, {}).graph.node] == ["ReduceMean"]
    bound = model([helper.make_node("ReduceMean", ["x", "axes"], ["y"])])
    assert [node.op_type for node in rewrite(bound, {"axes": (2,)}, {}).graph.node] == ["ReduceMean"]


CUTS = {"s": [1], "e": [6], "a2": [2], "a3": [3], "m1": [-1], "t": [2], "back": [-1], "far": [-(2**40)], "end": [2**40]}


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ("s e a2", "s e a3", True),
        ("s e a2 t", "s e a3", True),
        ("s e a3", "s end a2 t", True),
        ("back far a2 back", "s e a3 t", True),
        ("s e a2", "s e a2", False),
        ("s e a2", "s e m1", False),
        ("s e", "s e a3", False),
    ],
)
def test_slices_of_different_axes_are_one(rng, first, second, joined):
    nodes = [
        helper.make_node("Slice", ["x", *first.split()], ["between"]),
        helper.make_node("Slice", ["between", *second.split()], ["y"]),
    ]
    before = model(nodes, CUTS)
    assert same(before, rewrite(before, {}, {}), rng) == ["Slice"] * (1 if joined else 2)


def test_three_slices_in_a_row_are_one(rng):
    names = ["x", "p", "q", "y"]
    nodes = [
        helper.make_node("Slice", [names[i], "s", "e", axis], [names[i + 1]])
        for i, axis in enumerate(["a2", "a3", "a1"])
    ]
    before = model(nodes, {**CUTS, "a1": [1]})
    assert same(before, rewrite(before, {}, {}), rng) == ["Slice"]


def test_a_slice_that_others_read_or_that_is_rounded_stays(rng):
    nodes = [
        helper.make_node("Slice", ["x", "s", "e", "a2"], ["between"]),
        helper.make_node("Slice", ["between", "s", "e", "a3"], ["y"]),
    ]
    fine, coarse = Grid(0.1, 0, 0, 255), Grid(0.5, 0, 0, 255)
    alone = model(nodes, CUTS)
    assert len(rewrite(alone, {}, {"between": fine}).graph.node) == 2
    assert len(rewrite(alone, {}, {"x": coarse, "between": fine}).graph.node) == 2
    assert len(rewrite(alone, {}, {"x": fine, "between": fine}).graph.node) == 1
    read = model([*nodes, helper.make_node("Neg", ["between"], ["z"])], CUTS)
    assert same(read, rewrite(read, {}, {}), rng) == ["Slice", "Slice", "Neg"]


def test_every_node_gets_a_name_of_its_own_and_the_model_is_left_alone():
    nodes = [helper.make_node("Neg", ["x"], ["a"], "twin"), helper.make_node("Neg", ["a"], ["b"], "twin")]
    before = model([*nodes, helper.make_node("Neg", ["b"], ["y"])])
    text = before.SerializeToString()
    names = [node.name for node in rewrite(before, {}, {}).graph.node]
    assert len(set(names)) == 3
    assert all(names)
    assert before.SerializeToString() == text
