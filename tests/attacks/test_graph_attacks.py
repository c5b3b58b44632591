"""Attacks on graphs: structure, operators, sizes, bindings, ports and activations."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tests.attacks.reseal import take_apart
from tests.attacks.test_manifest_attacks import put
from tests.samples import conv_net

from attar._src.artifact.limits import Limits
from attar._src.artifact.writer import pack


def add(parts, *nodes, **constants):
    """Put nodes and constants before the nodes of the graph."""

    def edit(model):
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *kept])
        model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())

    return parts.graph(edit)


def node(*args, **attributes):
    return helper.make_node(*args, **attributes)


MODEL_EDITS = {
    "external data": (
        lambda m: m.graph.initializer.add(
            name="e", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL
        ).external_data.add(key="location", value="/etc/passwd"),
        "data_location|external_data",
    ),
    "a path in external data": (
        lambda m: m.graph.initializer.add(name="e", data_type=1, dims=[1]).external_data.add(
            key="location", value="../x"
        ),
        "external_data",
    ),
    "functions": (lambda m: m.functions.add(name="f", domain="local"), "functions"),
    "metadata": (lambda m: m.metadata_props.add(key="a", value="b"), "metadata_props"),
    "producer": (lambda m: setattr(m, "producer_name", "x"), "producer_name"),
    "a doc string": (lambda m: setattr(m.graph.node[0], "doc_string", "x"), "doc_string"),
    "training": (lambda m: m.training_info.add(), "training_info"),
    "a domain": (lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"), "domain"),
    "an import of another domain": (lambda m: m.opset_import.add(domain="com.microsoft", version=1), "domain"),
    "two opsets": (lambda m: m.opset_import.add(version=18), "opset"),
    "no opset": (lambda m: m.ClearField("opset_import"), "opset"),
    "an old opset": (lambda m: setattr(m.opset_import[0], "version", 12), "opset"),
    "a new opset": (lambda m: setattr(m.opset_import[0], "version", 26), "opset"),
    "an opset below none": (lambda m: setattr(m.opset_import[0], "version", -1), "opset"),
    "an old IR": (lambda m: setattr(m, "ir_version", 3), "IR"),
    "a new IR": (lambda m: setattr(m, "ir_version", 99), "IR"),
    "a sparse initializer": (lambda m: m.graph.sparse_initializer.add(dims=[4]), "sparse_initializer"),
    "quantization annotations": (
        lambda m: m.graph.quantization_annotation.add(tensor_name="x"),
        "quantization_annotation",
    ),
    "a value info": (lambda m: m.graph.value_info.add(name="relu"), "value_info"),
    "a large initializer": (
        lambda m: m.graph.initializer.append(numpy_helper.from_array(np.zeros(17, np.float32), "c")),
        "more than 64 bytes",
    ),
    "an initializer of a huge shape": (
        lambda m: m.graph.initializer.add(name="c", data_type=1, dims=[2**40, 2**40]),
        "more than 64 bytes",
    ),
    "an initializer of a negative shape": (
        lambda m: m.graph.initializer.add(name="c", data_type=1, dims=[-1]),
        "numbers",
    ),
    "an initializer of strings": (
        lambda m: m.graph.initializer.append(helper.make_tensor("c", TensorProto.STRING, [1], [b"a"])),
        "string_data|numbers",
    ),
    "an initializer of four bits": (lambda m: m.graph.initializer.add(name="c", data_type=22, dims=[1]), "numbers"),
    "an initializer with data for another shape": (
        lambda m: m.graph.initializer.add(name="c", data_type=1, dims=[2], raw_data=b"1234"),
        "does not fit its shape",
    ),
    "an initializer with two data": (
        lambda m: m.graph.initializer.add(name="c", data_type=1, dims=[1], raw_data=b"1234", float_data=[1.0]),
        "does not fit its shape",
    ),
    "an initializer without data": (
        lambda m: m.graph.initializer.add(name="c", data_type=1, dims=[2]),
        "does not fit its shape",
    ),
    "an initializer named as a binding": (
        lambda m: m.graph.initializer.append(numpy_helper.from_array(np.float32(1), "conv.bias")),
        "two of",
    ),
    "an initializer named as an input": (
        lambda m: m.graph.initializer.append(numpy_helper.from_array(np.float32(1), "x")),
        "two of",
    ),
    "an initializer twice": (
        lambda m: m.graph.initializer.extend([numpy_helper.from_array(np.float32(1), "c")] * 2),
        "two of",
    ),
    "another input": (
        lambda m: m.graph.input.append(helper.make_tensor_value_info("z", 1, [1])),
        "inputs of the graph",
    ),
    "an input of another type": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 10),
        "inputs of the graph",
    ),
    "an input of another shape": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 4),
        "inputs of the graph",
    ),
    "an input of a sequence": (
        lambda m: m.graph.input[0].type.sequence_type.elem_type.tensor_type.SetInParent(),
        "inputs of the graph",
    ),
    "no outputs": (lambda m: m.graph.ClearField("output"), "outputs of the graph"),
    "a node of no operator": (lambda m: m.graph.node.add(output=["z"]), "is not allowed in a file"),
    "a cycle": (lambda m: m.graph.node[1].input.__setitem__(0, "pool"), "'pool' is not defined"),
    "a node that reads itself": (lambda m: m.graph.node[1].input.__setitem__(0, "relu"), "is not defined"),
    "an output made twice": (lambda m: m.graph.node[2].output.__setitem__(0, "relu"), "exists already"),
    "an output named as an input": (lambda m: m.graph.node[1].output.__setitem__(0, "x"), "exists already"),
    "no output": (lambda m: m.graph.node[1].ClearField("output"), "outputs"),
    "an unnamed output": (lambda m: m.graph.node[1].output.__setitem__(0, ""), "outputs"),
    "too many outputs": (lambda m: m.graph.node[1].output.append("z"), "outputs"),
    "too few inputs": (lambda m: m.graph.node[0].ClearField("input"), "0 inputs"),
    "too many inputs": (lambda m: m.graph.node[0].input.extend(["x"] * 9), "inputs"),
    "a required input left out": (lambda m: m.graph.node[0].input.__setitem__(1, ""), "input 1 is missing"),
    "a name with an escape": (lambda m: setattr(m.graph.node[0], "name", "a\x1b[2J"), "printable"),
    "a long name": (lambda m: setattr(m.graph.node[0], "name", "a" * 600), "printable"),
    "an attribute twice": (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("pads", [1] * 4)), "twice"),
    "an unknown attribute": (lambda m: m.graph.node[1].attribute.append(helper.make_attribute("fast", 1)), "unknown"),
    "an attribute of another type": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("strides", [1.0, 1.0])),
        "of the wrong type",
    ),
    "an attribute with two values": (
        lambda m: m.graph.node[0].attribute[0].floats.extend([1.0]),
        "must not have the field 'floats'",
    ),
    "a reference to a function's attribute": (
        lambda m: setattr(m.graph.node[0].attribute[0], "ref_attr_name", "x"),
        "ref_attr_name",
    ),
    "a stride of zero": (lambda m: set_ints(m, 0, "strides", [0, 0]), "outside 1"),
    "a negative stride": (lambda m: set_ints(m, 0, "strides", [-1, 1]), "outside 1"),
    "a dilation of zero": (lambda m: set_ints(m, 0, "dilations", [0, 1]), "outside 1"),
    "a huge dilation": (lambda m: set_ints(m, 0, "dilations", [2**62, 2**62]), "outside 1"),
    "huge pads": (lambda m: set_ints(m, 0, "pads", [2**31 - 1] * 4), "elements|limit"),
    "negative pads": (lambda m: set_ints(m, 0, "pads", [-(2**40)] * 4), "outside 0"),
    "a group of zero": (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", 0)), "outside 1"),
    "many ints": (lambda m: set_ints(m, 0, "pads", [1] * 100_000), "items"),
    "an axis out of range": (lambda m: m.graph.node[3].attribute.append(helper.make_attribute("axis", 9)), "axis"),
    "a sub-graph": (
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("body", helper.make_graph([], "g", [], []))),
        "'g'|unknown",
    ),
    "a type attribute": (
        lambda m: m.graph.node[1].attribute.append(AttributeProto(name="t", type=AttributeProto.TYPE_PROTO, tp={})),
        "tp",
    ),
}


def set_ints(model, index, name, values):
    """Replace an attribute of a node."""
    kept = [item for item in model.graph.node[index].attribute if item.name != name]
    model.graph.node[index].ClearField("attribute")
    model.graph.node[index].attribute.extend([*kept, helper.make_attribute(name, values)])


@pytest.mark.parametrize("name", MODEL_EDITS)
def test_models(conv, refused, name):
    edit, match = MODEL_EDITS[name]
    refused(conv.graph(edit).seal(), f"graph main.*({match})")


FORBIDDEN = """
    If Loop Scan SequenceMap RandomNormal RandomUniform RandomNormalLike Multinomial Bernoulli Dropout NonZero Unique
    Compress NonMaxSuppression SequenceConstruct SequenceEmpty SplitToSequence Optional StringNormalizer StringConcat
    RegexFullMatch TfIdfVectorizer LabelEncoder ImageDecoder Constant QuantizeLinear Gradient Adam DFT Evil conv
"""


@pytest.mark.parametrize("operator", FORBIDDEN.split())
def test_operators_that_may_not_be(conv, refused, operator):
    refused(add(conv, node(operator, ["x"], ["z"])).seal(), f"the operator '{operator}' is not allowed in a file")


def test_control_flow_with_bodies(conv, refused):
    body = helper.make_graph([], "body", [], [helper.make_tensor_value_info("y", 1, [1])])
    refused(add(conv, node("If", ["x"], ["z"], then_branch=body, else_branch=body)).seal(), "'g'")
    refused(add(conv, node("Loop", ["", "", "x"], ["z"], body=body)).seal(), "'g'")


BIG = 2**20
BOMBS = {
    "ConstantOfShape": ([node("ConstantOfShape", ["s"], ["z"])], {"s": np.array([BIG, BIG])}),
    "ConstantOfShape that wraps": ([node("ConstantOfShape", ["s"], ["z"])], {"s": np.array([2**32, 2**32])}),
    "ConstantOfShape below zero": ([node("ConstantOfShape", ["s"], ["z"])], {"s": np.array([-1, 5])}),
    "ConstantOfShape computed": (
        [node("Mul", ["s", "s"], ["t"]), node("Mul", ["t", "t"], ["u"]), node("ConstantOfShape", ["u"], ["z"])],
        {"s": np.array([2**10])},
    ),
    "ConstantOfShape of a product that wraps": (
        [node("Mul", ["s", "s"], ["t"]), node("ConstantOfShape", ["t"], ["z"])],
        {"s": np.array([-(2**62) + 7])},
    ),
    "ConstantOfShape by the data": (
        [node("Cast", ["x"], ["t"], to=7), node("Flatten", ["t"], ["u"]), node("ConstantOfShape", ["u"], ["z"])],
        {},
    ),
    "Expand": ([node("Expand", ["x", "s"], ["z"])], {"s": np.array([BIG, 1, 1, 1])}),
    "Tile": ([node("Tile", ["x", "s"], ["z"])], {"s": np.array([1, 1, BIG, 1])}),
    "Tile below zero": ([node("Tile", ["x", "s"], ["z"])], {"s": np.array([-1, 1, 1, 1])}),
    "Range": ([node("Range", ["a", "b", "c"], ["z"])], {"a": np.array(0), "b": np.array(2**62), "c": np.array(1)}),
    "Range of zero steps": ([node("Range", ["a", "b", "c"], ["z"])], {n: np.array(0) for n in "abc"}),
    "Range of floats": (
        [node("Range", ["a", "b", "c"], ["z"])],
        {"a": np.float32(0), "b": np.float32(1), "c": np.float32(1e-38)},
    ),
    "Range of NaN": (
        [node("Range", ["a", "b", "c"], ["z"])],
        {"a": np.float32(0), "b": np.float32(np.nan), "c": np.float32(1)},
    ),
    "Range to infinity": (
        [node("Range", ["a", "b", "c"], ["z"])],
        {"a": np.float32(0), "b": np.float32(np.inf), "c": np.float32(1)},
    ),
    "Pad": ([node("Pad", ["x", "s"], ["z"])], {"s": np.array([0, 0, BIG, BIG, 0, 0, 0, 0])}),
    "Pad that wraps": ([node("Pad", ["x", "s"], ["z"])], {"s": np.full(8, 2**63 - 1)}),
    "Pad below zero": ([node("Pad", ["x", "s"], ["z"])], {"s": np.full(8, -100)}),
    "Resize by scales": (
        [node("Resize", ["x", "", "s"], ["z"])],
        {"s": np.array([1, 1, 1e6, 1e6], np.float32)},
    ),
    "Resize by infinity": ([node("Resize", ["x", "", "s"], ["z"])], {"s": np.array([1, 1, np.inf, 1], np.float32)}),
    "Resize by NaN": ([node("Resize", ["x", "", "s"], ["z"])], {"s": np.array([1, 1, np.nan, 1], np.float32)}),
    "Resize by zero": ([node("Resize", ["x", "", "s"], ["z"])], {"s": np.zeros(4, np.float32)}),
    "Resize to sizes": ([node("Resize", ["x", "", "", "s"], ["z"])], {"s": np.array([2, 3, BIG, BIG])}),
    "Resize to no size": ([node("Resize", ["x", "", "", "s"], ["z"])], {"s": np.array([2, 3, 0, -1])}),
    "OneHot": (
        [node("OneHot", ["i", "d", "v"], ["z"])],
        {"i": np.zeros(8, np.int64), "d": np.array(2**40), "v": np.zeros(2, np.float32)},
    ),
    "Reshape to what wraps": ([node("Reshape", ["x", "s"], ["z"])], {"s": np.array([2**32, 2**32, -1])}),
    "Reshape of two unknowns": ([node("Reshape", ["x", "s"], ["z"])], {"s": np.array([-1, -1])}),
    "Reshape below": ([node("Reshape", ["x", "s"], ["z"])], {"s": np.array([-5, -1])}),
    "Reshape to nothing": ([node("Reshape", ["x", "s"], ["z"], allowzero=1)], {"s": np.array([0, -1])}),
    "Slice of no step": (
        [node("Slice", ["x", "a", "b", "a", "a"], ["z"])],
        {"a": np.array([0]), "b": np.array([1])},
    ),
    "Slice of the least step": (
        [node("Slice", ["x", "a", "b", "a", "c"], ["z"])],
        {"a": np.array([0]), "b": np.array([1]), "c": np.array([-(2**63)])},
    ),
    "Split below zero": ([node("Split", ["x", "s"], ["z", "w"])], {"s": np.array([3, -1])}),
    "Split into none": ([node("Split", ["x"], ["z"], num_outputs=0)], {}),
    "TopK": ([node("TopK", ["x", "k"], ["z", "w"])], {"k": np.array([2**40])}),
    "DepthToSpace of no block": ([node("DepthToSpace", ["x"], ["z"], blocksize=0)], {}),
    "SpaceToDepth of the least block": ([node("SpaceToDepth", ["x"], ["z"], blocksize=-1)], {}),
    "Transpose by one axis": ([node("Transpose", ["x"], ["z"], perm=[0, 0, 0, 0])], {}),
    "Transpose by no axis": ([node("Transpose", ["x"], ["z"], perm=[0, 1, 2, 2**31 - 1])], {}),
    "Gather below all axes": ([node("Gather", ["x", "i"], ["z"], axis=-9)], {"i": np.array([0])}),
    "Concat along no axis": ([node("Concat", ["x", "x"], ["z"], axis=7)], {}),
    "Einsum outer product": ([node("Einsum", ["x", "x", "x"], ["z"], equation="abcd,efgh,ijkl->abcdefghijkl")], {}),
    "Einsum of symbols": ([node("Einsum", ["x"], ["z"], equation="\x00\xff->%s")], {}),
    "Div by zero": ([node("Div", ["a", "b"], ["z"])], {"a": np.array([1]), "b": np.array([0])}),
    "Div by a size": (
        [node("Shape", ["x"], ["s"], start=0, end=1), node("Div", ["a", "s"], ["z"])],
        {"a": np.array([1])},
    ),
    "Mod by the data": (
        [node("Cast", ["x"], ["t"], to=7), node("Mod", ["a", "t"], ["z"])],
        {"a": np.array([1])},
    ),
    "Mod by minus one": ([node("Mod", ["a", "b"], ["z"])], {"a": np.array([-(2**63)]), "b": np.array([-1])}),
    "the mean of integers": ([node("Cast", ["x"], ["t"], to=7), node("ReduceMean", ["t"], ["z"])], {}),
    "MatMul outer product": (
        [
            node("Reshape", ["x", "s"], ["a"]),
            node("Expand", ["a", "t"], ["b"]),
            node("Transpose", ["b"], ["c"], perm=[1, 0]),
            node("MatMul", ["b", "c"], ["z"]),
        ],
        {"s": np.array([-1, 1]), "t": np.array([384, 2])},
    ),
    # Kernels trust these: without the checks the process dies.
    "LayerNormalization with an absent last input": ([node("LayerNormalization", ["x", "x", ""], ["z"])], {}),
    "GatherND below all batches": (
        [node("GatherND", ["x", "i"], ["z"], batch_dims=-1)],
        {"i": np.zeros((0,), np.int64)},
    ),
    "EyeLike of a string": ([node("EyeLike", ["x"], ["z"], dtype=8)], {}),
    "Cast to a string": ([node("Cast", ["x"], ["z"], to=8)], {}),
    "Cast to no type": ([node("Cast", ["x"], ["z"], to=2**31 - 1)], {}),
    "Cast to four bits": ([node("Cast", ["x"], ["z"], to=22)], {}),
    "ConstantOfShape of a large fill": (
        [node("ConstantOfShape", ["s"], ["z"], value=numpy_helper.from_array(np.zeros(100)))],
        {"s": np.array([1])},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(conv, refused, name):
    nodes, constants = BOMBS[name]
    limits = Limits(value_elements=2**17)
    refused(add(conv, *nodes, **constants).seal(), "graph main", limits=limits)


def test_many_large_values_together(conv, refused):
    nodes = [node("ConstantOfShape", ["s"], [f"z{index}"]) for index in range(20)]
    data = add(conv, *nodes, s=np.array([2**27])).seal()
    refused(data, "all values together", limits=Limits(folded=2**40))
    refused(data, "constants alone would take more than 67108864 multiply-adds")


def test_values_that_double(conv, refused):
    nodes = [node("Concat", [f"z{index}"] * 2, [f"z{index + 1}"], axis=0) for index in range(60)]
    refused(add(conv, node("Identity", ["x"], ["z0"]), *nodes).seal(), "more than the limit")


def test_too_many_nodes(conv, refused):
    nodes = [node("Relu", ["x"], [f"z{index}"]) for index in range(300)]
    refused(add(conv, *nodes).seal(), "305 nodes", limits=Limits(nodes=300))


def test_messages_of_many_empty_fields(conv, refused):
    for text in (b"\x3a\x00" * 3_000_000, b"\x3a\x80\x80\x80\x01" + b"\x0a\x00" * (1 << 20)):
        refused(conv.graph_bytes(text).seal(), "fields", limits=Limits(nodes=2**13))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff" * 100,
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x3a\x04" * 20_000,
        b"\x08\x80" * 50,
        b"\x0b" * 100,
        b"not a model at all",
        b"\xf8\xff\x03\x01",
    ],
)
def test_bytes_that_are_no_model(conv, refused, text):
    refused(conv.graph_bytes(text).seal(), "graph main")


def test_unknown_fields(conv, refused):
    for edit in (lambda m: m, lambda m: m.graph.node[0], lambda m: m.graph.input[0].type.tensor_type):
        text = {}

        def extend(model, edit=edit, text=text):
            message = edit(model)
            message.MergeFromString(b"\xf8\xff\x03\x01")
            text["model"] = model.SerializeToString()

        conv.graph(extend)
        refused(conv.graph_bytes(text["model"]).seal(), "fields that ONNX does not know")


def test_deeply_nested_messages(conv, refused):
    text = b""
    for _ in range(3000):
        text = b"\x2a" + varint(len(text)) + text  # attribute in attribute in attribute
    refused(conv.graph_bytes(b"\x3a" + varint(len(text)) + text).seal(), "graph main")


def test_an_inflation_bomb(conv, refused):
    conv.graph_bytes(bytes(2**26 + 1))
    refused(conv.seal(), "more than the limit of 67108864")
    conv.manifest["graphs"][0]["length"] = 1000
    refused(conv.seal(), "does not inflate to the 1000 bytes")


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (["bindings", 0, "to"], "conv.bias", "two bindings make 'conv.bias'"),
        (["bindings", 0, "to"], "missing", "graph main, binding of 'missing': there is no tensor 'missing'"),
        (["bindings", 0, "to"], "x", "there is no tensor 'x'"),
        (["bindings", 0, "parts"], [{"tensor": "missing"}], "there is no tensor 'missing'"),
        (["bindings", 0, "parts"], [["conv.weight"]], "parts"),
        (["bindings", 0, "parts"], [{"tensor": "fc.weight"}], "node 0"),
        (["bindings", 0, "parts"], [{"tensor": "conv.weight", "start": 0}], "the run 0..None"),
        (["bindings", 0, "parts"], [{"tensor": "conv.weight", "start": 5, "stop": 4}], "the run 5..4"),
        (["bindings", 0, "parts"], [{"tensor": "conv.weight", "start": 0, "stop": 109}], "the run 0..109"),
        (["bindings", 0, "parts"], [{"tensor": "conv.weight", "start": -1, "stop": 4}], "start"),
        (["bindings", 0, "parts"], [{"tensor": "conv.weight"}] * 70_000, "records"),
        (["bindings", 0, "shape"], [4, 27, 2], "108 elements cannot be reshaped"),
        (["bindings", 0, "shape"], [4, 3, 9, -1], "shape"),
        (["bindings", 0, "shape"], [2**48] * 16, "108 elements cannot be reshaped"),
        (["bindings", 0, "shape"], [108], "node 0"),
        (["bindings", 0, "permute"], [0, 1, 2], "permute"),
        (["bindings", 0, "permute"], [0, 1, 2, 2], "permute"),
        (["bindings", 0, "permute"], [0, 1, 2, 4], "permute"),
        (["bindings", 0, "permute"], [3, 2, 1, 0], "node 4"),
        (["bindings", 2, "permute"], None, "node 4"),
        (["bindings", 0], {"to": "conv", "parts": [{"tensor": "conv.weight"}]}, "node 0"),
        (["bindings", "+"], {"to": "relu", "parts": [{"tensor": "conv.weight"}]}, "exists already"),
        (["bindings", "+"], {"to": "x", "parts": [{"tensor": "conv.weight"}]}, "two of an input"),
        (["inputs", 0, "name"], "z", "inputs of the graph"),
        (["inputs", 0, "dtype"], "f16", "inputs of the graph"),
        (["inputs", 0, "dtype"], "string", "dtype"),
        (["inputs", 0, "shape", 0], "other", "inputs of the graph"),
        (["inputs", 0, "shape", 1], 4, "inputs of the graph"),
        (["inputs", 0, "shape", 1], -3, "shape"),
        (["inputs", 0, "example"], None, "example sizes None"),
        (["inputs", 0, "example"], [2, 3, 8], "example sizes"),
        (["inputs", 0, "example"], [2, 3, 8, 9], "example sizes"),
        (["inputs", 0, "example"], [0, 3, 8, 8], "example sizes"),
        (["inputs", 0, "example"], [2**40, 3, 8, 8], "elements"),
        (["inputs", "+"], {"name": "z", "dtype": "f32", "shape": [1], "example": [1]}, "inputs of the graph"),
        (["outputs", 0, "name"], "relu", "outputs of the graph"),
        (["outputs"], [], "outputs of the graph"),
        (["activations", 0, "value"], "missing", "not an input or a node's output"),
        (["activations", 0, "value"], "conv.weight", "not an input or a node's output"),
        (["activations", 0, "value"], "relu", "appears twice"),
        (["activations", 0, "scale"], 0.0, "scale"),
        (["activations", 0, "scale"], -1.0, "scale"),
        (["activations", 0, "scale"], 1e-40, "not a positive normal float32"),
        (["activations", 0, "scale"], 1e39, "not a positive normal float32"),
        (["activations", 0, "scale"], "1", "scale"),
        (["activations", 0, "bits"], 1, "bits"),
        (["activations", 0, "bits"], 9, "bits"),
        (["activations", 0, "zero_point"], 256, "the zero point 256"),
        (["activations", 0, "zero_point"], -1, "the zero point -1"),
        (["activations", 0, "zero_point"], 2**70, "zero_point|zero point"),
        (["activations", 2, "zero_point"], 16, "the zero point 16 is outside 0..15"),
        (["activations", 0, "signed"], True, "the zero point 128 is outside -128..127"),
    ],
)
def test_records(conv, refused, path, value, match):
    put(conv.manifest["graphs"][0], path, value)
    refused(conv.seal(), match)


def test_bindings_that_multiply_a_tensor(conv, refused):
    parts = [{"tensor": "conv.weight"}] * 60_000
    conv.manifest["graphs"][0]["bindings"].append({"to": "spare", "parts": parts})
    refused(conv.seal(), "elements", limits=Limits(elements=2**20))


def test_outputs_that_are_not_what_their_record_says(conv, refused):
    record = conv.manifest["graphs"][0]["outputs"][0]
    for shape, match in ((["batch", 11], "at the example sizes"), (["other", 10], None), (["batch"], "example sizes")):
        record["shape"] = shape
        info = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
        conv.graph(lambda model, info=info: model.graph.output[0].CopyFrom(info))
        if match:
            refused(conv.seal(), match)


def test_an_output_that_is_an_input(conv, refused):
    record = conv.manifest["graphs"][0]
    record["outputs"][0] = {"name": "x", "dtype": "f32", "shape": ["batch", 3, 8, 8]}
    conv.graph(lambda model: model.graph.output[0].CopyFrom(model.graph.input[0]))
    refused(conv.seal(), "is not made by a node")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["missing"], "not the name of one node"),
        (["fc", "fc"], "appears twice"),
        ([""], "dynamic"),
        (["fc\n"], "dynamic"),
        ([7], "dynamic"),
        ("fc", "dynamic"),
        (["conv"], "Conv is not GRU, Gemm, LSTM, MatMul"),
        (["relu"], "Relu is not"),
        (["y"], "not the name of one node"),
        (["fc"] * 70_000, "records"),
    ],
)
def test_dynamic_nodes(conv, refused, names, match):
    conv.header["minor"] = 3
    conv.manifest["graphs"][0]["dynamic"] = names
    refused(conv.seal(), match)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (["conv"], "it is no dynamic Gemm or MatMul"),
        (["fc", "fc"], "appears twice"),
        (["missing"], "it is no dynamic Gemm or MatMul"),
        (["fc"] * 70_000, "records"),
        ("fc", "rows"),
    ],
)
def test_rows_are_those_of_dynamic_products(refused, rows, match):
    made = conv_net()
    parts = take_apart(pack(replace(made, graphs=(replace(made.graphs[0], dynamic=("fc",)),))))
    parts.manifest["graphs"][0]["rows"] = rows
    refused(parts.seal(), match)


def test_scaled_rows_need_version_1_4(conv, refused):
    conv.header["minor"] = 3
    conv.manifest["graphs"][0] |= {"dynamic": ["fc"], "rows": ["fc"]}
    refused(conv.seal(), "a dynamic node that scales rows needs format 1.4")


def test_a_dynamic_name_of_two_nodes(conv, refused):
    conv.header["minor"] = 3
    conv.manifest["graphs"][0]["dynamic"] = ["fc"]
    conv.graph(lambda model: setattr(model.graph.node[0], "name", "fc"))
    refused(conv.seal(), "dynamic node 'fc': it is not the name of one node")


def test_only_floats_are_quantized_as_they_are_read(conv, refused):
    conv.header["minor"] = 3
    conv.manifest["graphs"][0] |= {"dynamic": ["whole"], "activations": []}

    def edit(model):
        model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.int32), "ones"))
        model.graph.node.append(helper.make_node("MatMul", ["ones", "ones"], ["product"], "whole"))

    conv.graph(edit)
    refused(conv.seal(), "dynamic node 'whole': only float32 values")


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda node: node.attribute.append(helper.make_attribute("clip", 3.0)), "has no attributes but"),
        (lambda node: node.attribute.append(helper.make_attribute("input_forget", 1)), "has no attributes but"),
        (lambda node: node.attribute.append(helper.make_attribute("activations", ["Relu"] * 3)), "has no attributes"),
        (lambda node: node.input.extend(["P"]), "no peepholes"),
        (lambda node: node.input.__setitem__(2, "again"), "have to be initializers"),
        (lambda node: node.input.__setitem__(3, "biases"), "have to be initializers"),
        (lambda node: node.input.__setitem__(3, "P"), "'P' have to be float32 of the shape"),
        (lambda node: node.input.__setitem__(1, "R"), "'R' have to be float32 of the shape"),
    ],
)
def test_dynamic_recurrent_nodes(recurrent, refused, edit, match):
    recurrent.header["minor"] = 3
    recurrent.manifest["graphs"][0]["dynamic"] = ["lstm"]

    def change(model):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1), np.float32), "P"))
        for name, source in (("again", "R"), ("biases", "B")):
            model.graph.node.insert(0, helper.make_node("Identity", [source], [name], name))
        edit(next(node for node in model.graph.node if node.name == "lstm"))

    recurrent.graph(change)
    refused(recurrent.seal(), match)


def test_a_dynamic_node_in_a_file_of_version_1_2(conv, refused):
    conv.header["minor"] = 2
    conv.manifest["graphs"][0]["dynamic"] = ["fc"]
    refused(conv.seal(), "manifest: a dynamic node needs format 1.3; the header says 1.2")


def test_only_floats_are_quantized(recurrent, refused):
    recurrent.manifest["graphs"][0]["activations"] = [{"value": "tokens", "scale": 1.0}]
    refused(recurrent.seal(), "only float32")
