"""Nodes that only exporters need around recurrent layers: gone where that changes nothing."""

import numpy as np
import onnx
import pytest
from tests.runtime.reference import file_of, node
from tests.runtime.test_lower import check

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
CONSTANTS = {
    "nothing": np.float32(0),
    "something": np.float32(0.5),
    **{str(i): np.array([i]) for i in range(5)},
    "width": np.array([8]),
    "all": np.array([-1]),
}


def exported(rng, kind, *, directions=1, start="nothing", sizes=("0", "1"), keep=("first", "second")):
    """What PyTorch's exporter makes of one recurrent layer: states of zeros, and a shape that it computes."""
    gates = GATES[kind]
    tensors = {
        name: rng.normal(scale=0.3, size=(directions, gates * 8, width)).astype(np.float32)
        for name, width in (("w", 6), ("r", 8))
    }
    states = ["state"] * (2 if kind == "LSTM" else 1)
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    direction = "bidirectional" if directions == 2 else "forward"
    inputs = ["x", "w", "r", "", "", *states]
    layer = onnx.helper.make_node(kind, inputs, ["sequence"], "layer", hidden_size=8, direction=direction, **attributes)
    nodes = [
        node("Shape", "x", "batch", start=1, end=2),
        node("Concat", f"{directions} batch width", "form", axis=0),
        node("Expand", f"{start} form", "expanded"),
        node("Slice", f"expanded 0 {directions} 0", "state"),
        layer,
        node("Transpose", "sequence", "turned", perm=[0, 2, 1, 3]),
        node("Shape", "turned", "shape", start=0),
        node("Slice", f"shape {sizes[0]} {int(sizes[0]) + 1}", "first"),
        node("Slice", f"shape {sizes[1]} {int(sizes[1]) + 1} 0", "second"),
        node("Concat", f"{' '.join(keep)} all", "joined", axis=0),
        node("Reshape", "turned joined", "y", allowzero=0),
    ]
    return file_of(nodes, tensors, constants=CONSTANTS, x=(3, 3, 6), y=(3, 3, 8 * directions))


def left(artifact, rng):
    return [each.op_type for each in check(artifact, rng).model.graph.node]


@pytest.mark.parametrize("kind", GATES)
def test_one_direction(rng, kind):
    assert left(exported(rng, kind), rng) == [kind, "Squeeze"]


@pytest.mark.parametrize("kind", GATES)
def test_two_directions(rng, kind):
    assert left(exported(rng, kind, directions=2), rng) == [kind, "Transpose", "Reshape"]


def test_a_state_that_is_not_zero(rng):
    kept = left(exported(rng, "LSTM", start="something"), rng)
    assert kept == ["Shape", "Concat", "Expand", "Slice", "LSTM", "Squeeze"]


def test_another_shape_is_computed(rng):
    """It is the same here, as there are three steps of three examples, and would not be elsewhere."""
    kept = left(exported(rng, "GRU", keep=("first", "first")), rng)
    assert kept[0] == "GRU"
    assert "Concat" in kept
    assert "Concat" in left(exported(rng, "GRU", sizes=("1", "0")), rng)
