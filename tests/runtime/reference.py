"""The meaning of a file, node by node in floating point: what any way of running it has to agree with."""

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from tests.runtime.recurrent_reference import recur
from tests.samples import model_of

from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.manifest import Activation, Binding, Port
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.tensors import Dense


def file_of(
    nodes,
    tensors,
    activations=(),
    *,
    dynamic=(),
    rows=(),
    x=("batch", 3, 8, 8),
    y=("batch", 4),
    bindings=None,
    constants=(),
):
    """An open file of one graph from ``x`` to ``y``; arrays among the tensors are dense."""
    held = {name: Dense(value) if isinstance(value, np.ndarray) else value for name, value in tensors.items()}
    inputs = (Port(name="x", dtype="f32", shape=x, example=tuple(n if isinstance(n, int) else 2 for n in x)),)
    outputs = (Port(name="y", dtype="f32", shape=y),)
    graph = GraphContents(
        name="main",
        model=model_of(nodes, inputs, outputs, constants),
        bindings=bindings or tuple(Binding(to=name) for name in held),
        inputs=inputs,
        outputs=outputs,
        activations=tuple(activations),
        dynamic=tuple(dynamic),
        rows=tuple(rows),
    )
    parameters = sum(int(np.prod(tensor.shape)) for tensor in held.values())
    return open_artifact(pack(Contents(tensors=held, graphs=(graph,), parameters=parameters), coder="raw"))


def node(op, inputs, output, **attributes):
    """A node named after its output."""
    return helper.make_node(op, inputs.split(), [output], f"node_{output}", **attributes)


def act(value, scale=0.05, zero_point=0, bits=8, signed=False):
    """A quantized value."""
    return Activation(value=value, scale=float(np.float32(scale)), zero_point=zero_point, bits=bits, signed=signed)


def run(artifact: Artifact, feed, graph="main"):
    """The outputs of a file by the text of ``docs/format.md``."""
    model, record = artifact.graph(graph), artifact.graph_record(graph)
    grids = {activation.value: activation for activation in record.activations}
    raw, seen = {"": None}, {"": None}

    def define(name, value):
        raw[name] = value
        seen[name] = rounded(value, grids[name]) if name in grids else value

    for tensor in model.graph.initializer:
        define(tensor.name, onnx.numpy_helper.to_array(tensor))
    for binding in record.bindings:
        define(binding.to, artifact.initializer(binding))
    for name, value in feed.items():
        define(name, value)
    for item in model.graph.node:
        read = seen
        if item.name in record.dynamic and item.op_type in ("LSTM", "GRU"):
            for name, value in zip(item.output, recur(item, seen, dynamically_rounded), strict=True):
                define(name, value)
            continue
        if item.name in record.dynamic:
            # The data alone are rounded, so they need a name of their own.
            data = seen[item.input[0]]
            size = (
                np.maximum(np.abs(data).max(-1, keepdims=True), np.float32(2.0**-100))
                if row_scaled(record, item)
                else 1
            )
            item.input[0], read = "data", {**seen, "data": dynamically_rounded(data / size) * size}
        for name, value in zip(item.output, _evaluate(item, read, model.opset_import), strict=True):
            if name:
                define(name, value)
    return {value.name: raw[value.name] for value in model.graph.output}


def rounded(value, grid):
    """What the consumers of a quantized value read."""
    scale = np.float32(grid.scale)
    codes = np.clip(np.rint(value / scale) + grid.zero_point, grid.qmin, grid.qmax)
    return ((codes - grid.zero_point) * scale).astype(np.float32)


def row_scaled(record, item):
    """Whether a dynamic node scales the rows of its data."""
    return item.name in record.rows


def dynamically_rounded(value):
    """What a dynamic node reads of its data."""
    low, high = min(value.min(initial=0), np.float32(0)), max(value.max(initial=0), np.float32(0))
    scale = np.float32((high - low) / np.float32(255)) if high > low else np.float32(1)
    zero_point = np.clip(np.rint(-low / scale), 0, 255)
    codes = np.clip(np.rint(value / scale) + zero_point, 0, 255)
    return ((codes - zero_point) * scale).astype(np.float32)


def _evaluate(item, values, opsets):
    names = [name for name in dict.fromkeys(item.input) if name]
    kinds = {name: helper.np_dtype_to_tensor_dtype(values[name].dtype) for name in names}
    graph = helper.make_graph(
        [item],
        "one",
        [helper.make_tensor_value_info(name, kinds[name], None) for name in names],
        [onnx.ValueInfoProto(name=name) for name in item.output],
    )
    one = helper.make_model(graph, opset_imports=list(opsets), ir_version=10)
    return ReferenceEvaluator(one).run(None, {name: values[name] for name in names})
