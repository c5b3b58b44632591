"""Small files that crash, hang or fill the memory of their reader: each ends as an ArtifactError, soon.

The kinds: an axis of 0 into an operator that needs elements, windows far beyond their input, constants that ONNX
Runtime computes as it opens a file, text that grows as it is parsed, and work that grows with the square of a count.
Each is made here by code, sealed with right checksums, and opened, verified and run in a process of its own.
"""

import itertools
import json
import re
import sys
import zlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.attacks.reseal import Parts
from tests.cases.bounded import ends

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are the system's own")

node = helper.make_node
X = {"name": "x", "dtype": "f32", "shape": ["n", 3], "example": [1, 3]}
Y = {"name": "y", "dtype": "f32", "shape": ["n", 3]}
SCALAR_X = {"name": "x", "dtype": "f32", "shape": ["n"], "example": [1]}
SCALAR_Y = {"name": "y", "dtype": "f32", "shape": ["n"]}


def sealed(nodes=None, constants=None, inputs=(X,), outputs=(Y,), opset=22, tensors=(), data=b"", bindings=(), **more):
    """Return a file of one graph; ``tensors`` are records of ``data``, ``more`` are fields of the manifest."""

    def infos(ports):
        return [helper.make_tensor_value_info(port["name"], TensorProto.FLOAT, port["shape"]) for port in ports]

    nodes = [node("Relu", ["x"], ["y"])] if nodes is None else nodes
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), held)
    text = helper.make_model(graph, opset_imports=[onnx.OperatorSetIdProto(version=opset)], ir_version=10)
    text.ClearField("producer_name")
    record = {"name": "main", "section": 0, "length": 0, "inputs": [*inputs], "outputs": [*outputs]}
    sections, kinds = [b""], [{"kind": "graph"}]
    if tensors:
        sections.append(data)
        kinds.append({"kind": "tensors"})
    manifest = {"sections": kinds, "tensors": [*tensors], "graphs": [record | {"bindings": [*bindings]}]}
    manifest |= {"parameters": 1, **more}
    return Parts(manifest, sections, {"minor": 0}).graph_bytes(text.SerializeToString())


def folded(name, shape, *, more=(), opset=22, constants=None, **attributes):
    """Return a file whose graph adds the sum of an operator on zeros of a shape, a constant."""
    nodes = [
        node("ConstantOfShape", ["s"], ["c"]),
        node(name, ["c", *more], ["h"], **attributes),
        node("ReduceSum", ["h"], ["q"], keepdims=0),
        node("Add", ["x", "q"], ["y"]),
    ]
    return sealed(nodes, {"s": np.array(shape), **(constants or {})}, (SCALAR_X,), (SCALAR_Y,), opset)


def nothing_in(name, more=(), shape=(1, 3, 4, 4), constants=None, axes=(1,), **attributes):
    """Return a file whose operator reads a slice of the input that is empty along some axes."""
    port = {"name": "x", "dtype": "f32", "shape": list(shape), "example": list(shape)}
    nodes = [node("Slice", ["x", "z", "z", "a"], ["e"]), node(name, ["e", *more], ["h"], **attributes)]
    nodes += [node("ReduceSum", ["h"], ["y"], keepdims=0)]
    zeros, held = np.zeros(len(axes), np.int64), constants or {}
    return sealed(nodes, {"z": zeros, "a": np.array(axes), **held}, (port,), ({**Y, "shape": []},))


def codebook(elements):
    """Return the record and bytes of a tensor of ones: 12 bytes, whatever its size."""
    codes = {"length": 0, "coder": "raw"}
    value = {"kind": "codebook", "granularity": {"kind": "tensor"}, "points": {"length": 4}, "scale": {"length": 4}}
    value |= {"offset": {"length": 4}, "codes": codes}
    return {"name": "w", "shape": [elements], "section": 1, "value": value}, np.array([1, 1, 0], "<f4").tobytes()


def decoded(bindings, elements=2**25):
    record, data = codebook(elements)
    nodes = [node("Add", ["x", "b0"], ["y"]), *(node("Identity", [b["to"]], [f"i{b['to']}"]) for b in bindings[1:])]
    return sealed(nodes, tensors=[record], data=data, bindings=bindings)


def moves(count):
    """Return a file that transposes a tensor again and again."""
    record, data = codebook(4)
    names = ["w", *(f"v{index}" for index in range(count))]
    nodes = [node("Transpose", [before], [after]) for before, after in itertools.pairwise(names)]
    nodes += [node("ReduceSum", [names[-1]], ["q"], keepdims=0), node("Add", ["x", "q"], ["y"])]
    return sealed(nodes, tensors=[record], data=data, bindings=[{"to": "w"}])


def run_of(index, start, stop):
    return {"to": f"b{index}", "parts": [{"tensor": "w", "start": start, "stop": stop}]}


def manifest_text(edit):
    """Return a file whose manifest, as text, is edited."""
    parts = sealed(recipe={"here": 0})
    (section,) = parts.sections
    parts.manifest["sections"] = [{"kind": "graph", "length": len(section), "crc32": zlib.crc32(section)}]
    text = json.dumps(parts.manifest).replace('{"here": 0}', edit)
    parts.manifest = text.encode()
    return parts


def outputs(count):
    ports = [{"name": f"y{index}", "dtype": "f32", "shape": ["n", 3]} for index in range(count)]
    return sealed([node("Relu", ["x"], [port["name"]]) for port in ports], outputs=ports)


HUGE = 2**31 - 1
W = {"w": np.ones((1, 1, 1, 1), np.float32)}
PAIR = {"k": np.ones(2, np.float32)}
#: Name -> the file, and what the error says.
FILES = {
    # An axis of 0 into what needs elements.
    "conv_no_channels": (
        lambda: nothing_in("Conv", ["w"], constants={"w": np.ones((1, 0, 1, 1), np.float32)}),
        "empty axis",
    ),
    "transposed_no_space": (lambda: nothing_in("ConvTranspose", ["w"], (1, 1, 4, 4), W, axes=(2,)), "empty axis"),
    "norm_no_space": (
        lambda: folded("InstanceNormalization", (2, 2, 0, 4), more=["k", "k"], constants=PAIR),
        "empty axis",
    ),
    "gru_no_batch": (
        lambda: folded(
            "GRU", (3, 0, 1), more=["w", "w"], hidden_size=1, constants={"w": np.ones((1, 3, 1), np.float32)}
        ),
        "empty axis",
    ),
    "attention_no_heads": (lambda: nothing_in("Attention", ["e", "e"]), "Attention|opset"),
    # Windows.
    "pool_window": (
        lambda: sealed(
            [node("LpPool", ["x"], ["y"], auto_pad="SAME_UPPER", kernel_shape=[HUGE, HUGE])],
            inputs=({**X, "shape": ["n", 1, 3, 3], "example": [1, 1, 3, 3]},),
            outputs=({**Y, "shape": ["n", 1, "a", "b"]},),
        ),
        "its window",
    ),
    "padded_window": (
        lambda: sealed(
            [node("MaxPool", ["x"], ["y"], kernel_shape=[2**20] * 2, pads=[2**20 - 1] * 4, strides=[2**20] * 2)],
            inputs=({**X, "shape": ["n", 1, 3, 3], "example": [1, 1, 3, 3]},),
            outputs=({**Y, "shape": ["n", 1, "a", "b"]},),
        ),
        "its window",
    ),
    "folded_window": (
        lambda: folded("LpPool", (1, 1, 3, 3), auto_pad="SAME_UPPER", kernel_shape=[HUGE, HUGE]),
        "its window",
    ),
    "channels_window": (lambda: folded("LRN", (1, 2, 2, 2), size=HUGE), "multiply-adds"),
    # What ONNX Runtime computes as it opens a file.
    "folded_constant": (lambda: folded("Cos", (2**27,)), "constants alone"),
    "folded_product": (lambda: folded("MatMul", (2**13, 2**13), more=["c"]), "constants alone"),
    "folded_einsum": (lambda: folded("Einsum", (2**10,), more=["c", "c", "c"], equation="a,b,c,d->"), "multiply-adds"),
    "folded_pool": (
        lambda: folded("MaxPool", (1, 1, 2**10, 2**10), kernel_shape=[2**10] * 2, pads=[2**9] * 4),
        "constants",
    ),
    # Text that grows as it is parsed.
    "json_lists": (lambda: manifest_text('{"a":[' + "[[]]," * 3_000_000 + "0]}"), "values, more than the limit"),
    "json_numbers": (lambda: manifest_text('{"a":[' + "1," * 8_000_000 + "0]}"), "values, more than the limit"),
    "json_keys": (lambda: manifest_text("{" + ",".join(f'"{n}":0' for n in [*range(60_000), 59_999]) + "}"), "twice"),
    "json_first_key": (lambda: manifest_text("{" + ",".join(f'"{n}":0' for n in [*range(60_000), 0]) + "}"), "twice"),
    "unknown_keys": (
        lambda: sealed(tensors=[{"name": "w", "shape": [], "section": 1, "value": {"kinds": "x" * 60}}] * 60_000),
        "manifest",
    ),
    # Counts.
    "outputs": (lambda: outputs(8_000), "ports"),
    "wide_nodes": (
        lambda: sealed([node("Sum", ["x"] * 8_000, [f"v{n}"]) for n in range(100)] + [node("Relu", ["x"], ["y"])]),
        "protobuf fields",
    ),
    "runs": (lambda: decoded([run_of(index, index, index + 1) for index in range(100)]), "elements"),
    "bindings": (lambda: decoded([run_of(index, 0, 1) for index in range(60_000)], 1024), "read bindings: 60000"),
    "tensor_of_one_symbol": (lambda: decoded([run_of(0, 0, 1)], 2**28), "elements_per_byte"),
    "bound_again": (lambda: decoded([run_of(index, 0, 2**25) for index in range(8)]), "elements_per_byte"),
    # Fields.
    "preprocessing": (lambda: sealed(preprocessing={"name": "p", "layout": "NC", "mean": []}), "mean"),
    "deviation": (lambda: sealed(preprocessing={"name": "p", "layout": "NC", "std": []}), "std"),
    "operator_with_an_escape": (lambda: sealed([node("\x1b[2JRelu", ["x"], ["y"])]), "printable"),
}
#: Sound, though they look like bombs.
SOUND = {
    "escapes_in_prose": lambda: sealed(licence="\x1b]0;owned\x07\x1b[2J", class_names=["\x1b[31mA"]),
    "a_mask_of_a_thousand_tokens": lambda: folded("Trilu", (2**10, 2**10)),
    "three_thousand_moves_of_a_weight": lambda: moves(3_000),
    "one_run_of_many": lambda: decoded([run_of(0, 0, 1)], 2**22),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, (make, _) in FILES.items():
        (folder / f"{name}.attar").write_bytes(make().seal())
    for name, make in SOUND.items():
        (folder / f"{name}.attar").write_bytes(make().seal())
    return ends(folder)


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused(ended, name):
    end = ended[f"{name}.attar"]
    assert end.startswith("ArtifactError: "), end
    assert re.search(FILES[name][1], end), end
    assert "\x1b" not in end


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_run(ended, name):
    assert ended[f"{name}.attar"] == "ran"
