"""Moves of weights, against ONNX Runtime."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from attar._src.runtime.moves import MOVES, moved

CASES = [
    ("Identity", (2, 3), [], {}, 1),
    ("Transpose", (2, 3, 4), [], {"perm": [2, 0, 1]}, 1),
    ("Transpose", (2, 3, 4), [], {}, 1),
    ("Reshape", (2, 3, 4), [[0, -1]], {}, 1),
    ("Flatten", (2, 3, 4), [], {"axis": 2}, 1),
    ("Squeeze", (1, 3, 1), [[-1]], {}, 1),
    ("Squeeze", (1, 3, 1), [], {}, 1),
    ("Unsqueeze", (2, 3), [[0, -1]], {}, 1),
    ("Split", (2, 6), [[4, 2]], {"axis": 1}, 2),
    ("Split", (7, 2), [], {"num_outputs": 3}, 3),
    ("Gather", (4, 3), [2], {}, 1),
    ("Gather", (4, 3), [[1, -1]], {"axis": 1}, 1),
    ("GatherND", (4, 3, 2), [[[1, 2], [0, 0]]], {}, 1),
    ("Slice", (5, 4), [[1, 3], [2**31, -5], [0, 1], [2, -1]], {}, 1),
    ("Slice", (5, 4), [[-3], [-1]], {}, 1),
]


@pytest.mark.parametrize(("kind", "shape", "given", "attributes", "outputs"), CASES)
def test_moves_are_those_of_onnx_runtime(kind, shape, given, attributes, outputs):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    others = [np.array(each, np.int64) for each in given]
    names = [f"i{index}" for index in range(len(others))]
    node = helper.make_node(kind, ["x", *names], [f"y{index}" for index in range(outputs)], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output],
        [numpy_helper.from_array(array, name) for name, array in zip(names, others, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    wanted = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    got = moved(node, x, others)
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_move_is_tried():
    assert {kind for kind, *_ in CASES} == MOVES
