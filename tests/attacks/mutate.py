"""Mutations of sound files: what the fuzzer does to one before it seals it again."""

import copy
import json
import math
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx import helper, numpy_helper
from tests.attacks.reseal import Parts

from attar._src.artifact.graph.operators import OPERATORS

NUMBERS = [0, 1, 2, 3, 7, 15, 16, 63, 64, 127, 128, 255, 256, 257, 2**15, 2**16, 2**20, 2**28, 2**31 - 1, 2**31, 2**32]
NUMBERS += [2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64]
NUMBERS += [-number for number in NUMBERS]
FLOATS = [0.0, -0.0, 0.5, 1e-45, 1e-38, 1e38, 3.5e38, 1e308, -1.0, float("nan"), float("inf"), float("-inf")]
WORDS = [
    "",
    "x",
    "main",
    "rans",
    "raw",
    "huffman",
    "tensor",
    "channel",
    "group",
    "bucket",
    "dense",
    "quantized",
    "sparse",
]
WORDS += [
    "codebook",
    "f32",
    "i64",
    "bool",
    "bf16",
    "f16",
    "batch",
    "a" * 600,
    "\x1b[2J",
    "evil.py:run",
    "../../etc/passwd",
    "é",
    "\0",
]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [0], {"kind": "dense"}, [None] * 100]
_OPERATORS = sorted(OPERATORS)
#: Operators whose kernels need elements, or take long.
_HEAVY = """
    AveragePool MaxPool LpPool Conv ConvTranspose GRU LSTM RNN InstanceNormalization LRN Einsum MatMul Gemm Attention
    GridSample Resize CumSum TopK GatherND""".split()
_STRINGS = (
    b"SAME_UPPER SAME_LOWER VALID NOTSET linear nearest cubic floor half_pixel asymmetric reflect constant none".split()
)
_STRINGS += b"Tanh Sigmoid Relu forward reverse bidirectional ij,jk->ik ...i->... abcd->a bilinear CRD x".split()


def mutate(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Change one thing, or a few, in a file that is in parts; ``other`` is one to take pieces from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if isinstance(parts.manifest, bytes):
            return  # it is text now, and no longer in parts
        rng.choices(list(_MUTATIONS), list(_MUTATIONS.values()))[0](parts, rng, other)


def hostile(rng: random.Random, old: Any = None) -> Any:
    """Return a value that is likely to be wrong, often close to the one that was there."""
    if isinstance(old, int) and not isinstance(old, bool) and rng.random() < 0.5:
        return rng.choice((old + 1, old - 1, -old, old * 2, old // 2, old + 64, old ^ 1 << rng.randrange(16)))
    if isinstance(old, float) and rng.random() < 0.5:
        return rng.choice((-old, old * 1e10, old * 1e-10, 0.0))
    return rng.choice((rng.choice(NUMBERS), rng.choice(FLOATS), rng.choice(WORDS), copy.deepcopy(rng.choice(OTHERS))))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key in a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def change_manifest(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Replace, remove, double or move a value of the manifest."""
    container, key = rng.choice(list(_places(parts.manifest)))
    kind = rng.randrange(6)
    if kind < 3:
        container[key] = hostile(rng, container[key])
    elif kind == 3:
        del container[key]
    elif kind == 4:
        source, taken = rng.choice(list(_places(rng.choice((parts, other)).manifest)))
        container[key] = copy.deepcopy(source[taken])  # a copy: the manifest must stay a tree
    elif isinstance(container, list):
        container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
    else:
        container[rng.choice(WORDS)] = copy.deepcopy(container[key])


def change_bytes(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Overwrite, cut, lengthen or splice the bytes of a section."""
    if not parts.sections:
        return
    index = rng.randrange(len(parts.sections))
    parts.sections[index] = _change(parts.sections[index], rng, rng.choice(other.sections or [b""]))


def change_stream(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Lengthen or cut one stream of a tensor, or a coding table, with all lengths in agreement."""
    streams = []
    for container, key in _places(parts.manifest):
        if key == "length" and isinstance(container["length"], int) and "crc32" not in container:
            streams.append(container)
    if not streams or not parts.sections:
        return
    record = rng.choice(streams)
    change = rng.choice((-2, -1, 1, 2, 8))
    index = rng.randrange(len(parts.sections))
    data = parts.sections[index]
    place = rng.randrange(len(data) + 1)
    record["length"] += change
    parts.sections[index] = (
        data[:place] + rng.randbytes(change) + data[place:] if change > 0 else data[:place] + data[place - change :]
    )


def change_text(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Change the bytes of a graph inside its DEFLATE stream."""

    def edit(text: bytes) -> bytes:
        return _change(text, rng, b"\x0a\x00\x12\x01a")

    _each_graph(parts, edit)


def change_graph(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Change a graph as a message."""

    def edit(text: bytes) -> bytes:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(text)
        except Exception:  # noqa: BLE001 -- an earlier mutation left no message
            return text
        for _ in range(rng.choice((1, 1, 2, 4))):
            rng.choice(_GRAPH_MUTATIONS)(model, rng)
        return model.SerializeToString()

    _each_graph(parts, edit)


def change_header(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Put a number that fits into a field of header or footer."""
    field = rng.choice(("major", "minor", "start", "length", "inflated", "crc32"))
    width = {"major": 16, "minor": 16, "crc32": 32}.get(field, 64)
    number = rng.choice(NUMBERS) % 2**width
    (parts.header if width == 16 else parts.footer)[field] = number


def change_sizes(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Give an input another size, in the record and in the graph."""
    try:
        record = parts.manifest["graphs"][0]
        port = rng.choice(record["inputs"])
        axis = rng.randrange(len(port["example"]))
        size = rng.choice((0, 1, 2, 3, 5, 64, 1000, 2**16, 2**31, -1))
        port["example"][axis] = size
        if isinstance(port["shape"][axis], int):
            port["shape"][axis] = size
            index = record["inputs"].index(port)
            parts.graph(lambda m: setattr(m.graph.input[index].type.tensor_type.shape.dim[axis], "dim_value", size))
    except Exception:  # noqa: BLE001 -- an earlier mutation left no such thing
        return


def change_json(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Turn the manifest into text that repeats keys, nests, grows or does not end."""
    if not isinstance(parts.manifest, dict):
        return
    text = json.dumps(parts.manifest)
    places = [index for index, letter in enumerate(text) if letter in "{[,:"]
    place = rng.choice(places) + 1
    count = rng.choice((1, 2, 40, 1000, 100_000))
    filling = rng.choice(
        (
            '"a":0,' * count,
            "".join(f'"{number}":0,' for number in range(min(count, 20_000))),
            "[" * count + "]" * count + ",",
            '{"a":' * count + "0" + "}" * count + ",",
            "[[]]," * count,
            "0," * count,
            "9" * count + ",",
            '"' + "\\" * count + '",',
            '"\\ud800",' * count,
            "-" * count,
            " " * count,
            '"' + "\x1b[2J" * count + '",',
            "NaN,",
        )
    )
    parts.manifest = (text[:place] + filling + text[place:]).encode()


def _each_graph(parts: Parts, edit: Callable[[bytes], bytes]) -> None:
    try:
        records = [record for record in parts.manifest["graphs"] if isinstance(record["section"], int)]
        for record in records:
            text = edit(zlib.decompress(parts.sections[record["section"]], -15))
            parts.graph_bytes(text, parts.manifest["graphs"].index(record))
    except Exception:  # noqa: BLE001 -- an earlier mutation left no such section
        return


def _change(data: bytes, rng: random.Random, filling: bytes) -> bytes:
    if not data:
        return filling
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 1, 2, 4, 16, 64)))
    kind = rng.randrange(6)
    if kind < 2:
        return data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
    if kind == 2:
        return data[:start] + rng.randbytes(stop - start) + data[stop:]
    if kind == 3:
        return data[:start] + rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (stop - start) + data[stop:]
    if kind == 4:
        return data[:start] + data[stop:]
    return data[:start] + rng.choice((filling, data))[: stop - start] + data[start:]


def _names(model: onnx.ModelProto, rng: random.Random) -> str:
    graph = model.graph
    names = [item.name for item in (*graph.input, *graph.initializer)]
    names += [name for node in graph.node for name in (*node.input, *node.output)]
    return rng.choice([*names, "", "missing"])


def _set_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        rng.choice(model.graph.node).op_type = rng.choice([*_OPERATORS, "If", "Loop", "Constant", "Evil"])


def _rewire(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        node = rng.choice(model.graph.node)
        names = rng.choice((node.input, node.input, node.output))
        kind = rng.randrange(3)
        if kind == 0 or not names:
            names.append(_names(model, rng))
        elif kind == 1:
            names[rng.randrange(len(names))] = _names(model, rng)
        else:
            del names[rng.randrange(len(names))]


def _set_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.graph.node:
        return
    node = rng.choice(model.graph.node)
    if rng.random() < 0.3 and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]
        return
    _give_attribute(model, node, rng)


def _give_attribute(model: onnx.ModelProto, node: onnx.NodeProto, rng: random.Random) -> None:
    try:
        schema = onnx.defs.get_schema(node.op_type, model.opset_import[0].version, "")
    except (onnx.defs.SchemaError, IndexError):
        return
    if schema.attributes:
        name, attribute = rng.choice(sorted(schema.attributes.items()))
        _give(node, name, int(attribute.type), rng)


def _give(node: onnx.NodeProto, name: str, kind: int, rng: random.Random) -> None:
    """Give a node an attribute of a type, in place of the one it has."""
    kept = [item for item in node.attribute if item.name != name]
    added = onnx.AttributeProto(name=name, type=kind)
    count = rng.randrange(6)
    numbers = [rng.choice((0, 1, 1, 2, 3, -1)) if rng.random() < 0.8 else _int64(rng.choice(NUMBERS)) for _ in range(9)]
    added.i, added.f, added.s = numbers[0], rng.choice(FLOATS), rng.choice(_STRINGS)
    added.ints.extend(_window(name, rng) if name in _WINDOWS and rng.random() < 0.9 else numbers[1 : 1 + count])
    added.floats.extend(rng.choice(FLOATS) for _ in range(count))
    added.strings.extend(rng.choice(_STRINGS) for _ in range(count))
    added.t.CopyFrom(_constant("", rng.random() < 0.5, rng))
    holds = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
    for number, field in holds.items():
        if number != kind:
            added.ClearField(field)
    del node.attribute[:]
    node.attribute.extend([*kept, added])


_WINDOWS = ("kernel_shape", "strides", "pads", "dilations", "output_padding", "output_shape")


def _window(name: str, rng: random.Random) -> list[int]:
    """Return the sizes of a window along one to three axes, mostly small, of the length its attribute has."""
    axes = rng.choice((1, 2, 2, 3)) * (2 if name == "pads" else 1)
    large = (0, 5, 16, 63, 64, 65, 1000, 2**16, 2**20, 2**30, 2**31 - 1)
    return [rng.choice((1, 1, 2, 3)) if rng.random() < 0.7 else rng.choice(large) for _ in range(axes)]


def _set_window(model: onnx.ModelProto, rng: random.Random) -> None:
    """Give a node that has a window another one."""
    windowed = [node for node in model.graph.node if "Conv" in node.op_type or "Pool" in node.op_type]
    if windowed:
        name = rng.choice(_WINDOWS if rng.random() < 0.1 else _WINDOWS[:4])
        _give(rng.choice(windowed), name, onnx.AttributeProto.INTS, rng)


def _add_constant_node(model: onnx.ModelProto, rng: random.Random) -> None:
    """Add a node of any operator that reads constants alone, some with an axis of 0, and is read by the others."""
    number = len(model.graph.node) + len(model.graph.initializer)
    shape = [rng.choice((0, 1, 1, 2, 3, 3, 4, 8)) for _ in range(rng.randrange(1, 5))]
    if rng.random() < 0.1:
        shape[rng.randrange(len(shape))] = rng.choice((2**10, 2**17, 2**20, 2**31))
    model.graph.initializer.append(helper.make_tensor(f"k{number}", 7, [len(shape)], shape))
    nodes = [helper.make_node("ConstantOfShape", [f"k{number}"], [f"k{number}_0"])]
    for step in range(rng.choice((1, 1, 2))):
        nodes.append(_reader(model, f"k{number}_{step}", f"k{number}_{step + 1}", rng))
    kept = [onnx.NodeProto.FromString(item.SerializeToString()) for item in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    readers = [node for node in kept if node.input]
    if readers and rng.random() < 0.3:
        after = rng.choice([node for node in model.graph.node if node.name and node.input] or [model.graph.node[-1]])
        after.input[rng.randrange(len(after.input))] = nodes[-1].output[0]


def _add_empty_axis(model: onnx.ModelProto, rng: random.Random) -> None:
    """Slice an axis of an input of a node to 0, or to little."""
    nodes = [node for node in model.graph.node if node.input and node.input[0]]
    if not nodes:
        return
    number = len(model.graph.node) + len(model.graph.initializer)
    node = rng.choice(nodes)
    place = [*model.graph.node].index(node)
    which = rng.randrange(len(node.input)) if rng.random() < 0.3 else 0
    axis, start = rng.randrange(4), rng.choice((0, 0, 1))
    for name, value in (("start", start), ("stop", start + rng.choice((0, 0, 0, 1))), ("axis", axis)):
        model.graph.initializer.append(helper.make_tensor(f"e{number}_{name}", 7, [1], [value]))
    inputs = [node.input[which], *(f"e{number}_{name}" for name in ("start", "stop", "axis"))]
    kept = [onnx.NodeProto.FromString(item.SerializeToString()) for item in model.graph.node]
    kept[place].input[which] = f"e{number}"
    del model.graph.node[:]
    model.graph.node.extend([*kept[:place], helper.make_node("Slice", inputs, [f"e{number}"]), *kept[place:]])


def _reader(model: onnx.ModelProto, value: str, output: str, rng: random.Random) -> onnx.NodeProto:
    """Return a node of any operator that reads a value, and constants."""
    node = helper.make_node(rng.choice(_HEAVY if rng.random() < 0.5 else _OPERATORS), [], [output])
    schema = onnx.defs.get_schema(node.op_type, 25, "")
    for index, formal in enumerate(schema.inputs):
        if formal.option.name == "Optional" and rng.random() < 0.7:
            break
        if index == 0 or rng.random() < 0.3:
            node.input.append(value)
        else:
            node.input.append(f"{output}_c{index}")
            model.graph.initializer.append(_constant(node.input[-1], "tensor(float)" not in formal.types, rng))
    for name, attribute in sorted(schema.attributes.items()):
        if attribute.required or name == "kernel_shape" or rng.random() < 0.2:
            _give(node, name, int(attribute.type), rng)
    return node


def _add_node(model: onnx.ModelProto, rng: random.Random) -> None:
    """Add a node of any operator, mostly with inputs and attributes of the types it takes."""
    place = rng.randrange(len(model.graph.node) + 1)
    number = len(model.graph.node)
    node = helper.make_node(rng.choice(_OPERATORS), [], [f"new{number}"])
    try:
        schema = onnx.defs.get_schema(node.op_type, model.opset_import[0].version, "")
    except (onnx.defs.SchemaError, IndexError):
        return
    floats = [item.name for item in model.graph.input if item.type.tensor_type.elem_type == 1]
    floats += [name for earlier in model.graph.node[:place] for name in earlier.output]
    formals = list(schema.inputs)
    for index, formal in enumerate(formals + formals[-1:] * rng.randrange(2)):
        if formal.option.name == "Optional" and rng.random() < 0.5:
            node.input.append("")
        elif "tensor(float)" in formal.types and floats and rng.random() < 0.8:
            node.input.append(rng.choice(floats))
        else:
            node.input.append(f"c{number}_{index}")
            model.graph.initializer.append(_constant(f"c{number}_{index}", "tensor(int64)" in formal.types, rng))
    node.output.extend(
        f"new{number}_{index}" for index in range(rng.randrange(schema.min_output, schema.min_output + 2))
    )
    del node.output[: rng.randrange(2) if len(node.output) > 1 else 0]
    for name, attribute in sorted(schema.attributes.items()):
        if attribute.required or rng.random() < 0.3:
            _give(node, name, int(attribute.type), rng)
    kept = [onnx.NodeProto.FromString(item.SerializeToString()) for item in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*kept[:place], node, *kept[place:]])
    if rng.random() < 0.5 and place < len(kept):
        after = model.graph.node[rng.randrange(place + 1, len(kept) + 1)]
        if after.input:
            after.input[rng.randrange(len(after.input))] = node.output[0]


def _constant(name: str, integers: bool, rng: random.Random) -> onnx.TensorProto:
    """Return a constant of a few numbers, most of them small."""
    flat = ([], [1], [1], [2], [3], [4], [4], [8], [0])
    deep = ([1, 1], [2, 2], [1, 3, 1], [2, 1, 2, 1], [1, 1, 1, 1, 1], [0, 3], [1, 0, 2, 2], [4, 4], [1, 2, 2, 2])
    shape = rng.choice(flat if rng.random() < 0.6 else deep)
    count = math.prod(shape)
    values = [rng.choice((0, 1, 1, 2, 3, -1)) if rng.random() < 0.9 else rng.choice(NUMBERS) for _ in range(count)]
    if integers:
        return helper.make_tensor(name, 7, shape, [_int64(value) for value in values])
    return helper.make_tensor(name, 1, shape, [max(-3e38, min(3e38, float(value))) for value in values])


def _int64(value: int) -> int:
    return max(-(2**63), min(2**63 - 1, value))


def _remove_node(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def _swap_nodes(model: onnx.ModelProto, rng: random.Random) -> None:
    if len(model.graph.node) > 1:
        first, second = (rng.randrange(len(model.graph.node)) for _ in range(2))
        kept = onnx.NodeProto.FromString(model.graph.node[first].SerializeToString())
        model.graph.node[first].CopyFrom(model.graph.node[second])
        model.graph.node[second].CopyFrom(kept)


def _set_constant(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    kind = rng.randrange(5)
    if kind == 0:
        tensor.dims.append(rng.choice((0, 1, 2, -1, 2**40)))
    elif kind == 1:
        tensor.data_type = rng.randrange(26)
    elif kind == 2:
        tensor.CopyFrom(_constant(tensor.name, tensor.data_type == onnx.TensorProto.INT64, rng))
    elif tensor.data_type == onnx.TensorProto.INT64:
        try:
            array = numpy_helper.to_array(tensor).copy()
        except Exception:  # noqa: BLE001 -- an earlier mutation left no tensor
            return
        if array.size:
            array.reshape(-1)[rng.randrange(array.size)] = max(-(2**63), min(2**63 - 1, rng.choice(NUMBERS)))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _set_field(model: onnx.ModelProto, rng: random.Random) -> None:
    """Set a field that no file may have, or version numbers."""
    node = rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()
    rng.choice(
        (
            lambda: setattr(model, "ir_version", rng.randrange(20)),
            lambda: setattr(model.opset_import[0], "version", rng.randrange(10, 28)) if model.opset_import else None,
            lambda: setattr(model, "producer_name", "x"),
            lambda: setattr(node, "domain", rng.choice(("ai.onnx", "com.microsoft", "ai.onnx.ml"))),
            lambda: setattr(node, "name", rng.choice(WORDS)),
            lambda: model.functions.add(name="f"),
            lambda: model.graph.sparse_initializer.add(),
            lambda: model.graph.initializer.add(name="e", data_location=1).external_data.add(
                key="location", value="/x"
            ),
            lambda: model.MergeFromString(b"\xf8\xff\x03\x01"),
        )
    )()


_GRAPH_MUTATIONS = (
    _set_operator,
    _rewire,
    _set_attribute,
    _set_attribute,
    _add_node,
    _add_node,
    _add_node,
    _remove_node,
    _swap_nodes,
    _set_constant,
    _set_constant,
    _set_window,
    _add_constant_node,
    _add_constant_node,
    _add_empty_axis,
    _set_field,
)
_MUTATIONS = {
    change_manifest: 6,
    change_bytes: 3,
    change_stream: 2,
    change_text: 2,
    change_graph: 8,
    change_header: 0.3,
    change_sizes: 1,
    change_json: 0.5,
}
