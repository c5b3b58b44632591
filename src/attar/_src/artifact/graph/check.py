"""Validate a stored graph before a runtime sees it (``docs/format.md``, section 5)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.artifact.bindings import Bound
from attar._src.artifact.graph import protobuf, sizes
from attar._src.artifact.graph.emptiness import EmptyAxis
from attar._src.artifact.graph.guards import Sized, elements
from attar._src.artifact.graph.operators import DYNAMIC, MAX_IR, MAX_OPSET, MIN_IR, MIN_OPSET, ROW_SCALED, TYPES
from attar._src.artifact.graph.strip import ELEMENT_TYPES, port_info
from attar._src.artifact.graph.values import SMALL_VALUE
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import NAME_PATTERN, GraphRecord, Port
from attar._src.core.errors import ArtifactError, naming_section
from attar._src.core.scheme import Shape

_NAME = re.compile(NAME_PATTERN)
_MAX_NAME = 512
#: The sizes at which a user runs a graph are the user's own.
_NO_LIMITS = Limits(value_elements=2**62, graph_elements=2**62, work=2**200, folded=2**200)


class CheckedGraph(NamedTuple):
    """A validated graph: the model, its inputs and initializers, and all its values at the example sizes."""

    model: onnx.ModelProto
    sources: dict[str, Sized]
    values: dict[str, Sized]

    def check_sizes(self, shapes: Mapping[str, Shape]) -> None:
        """Raise :class:`EmptyAxis` if inputs of these shapes leave an operator that needs elements without any."""
        given = {name: self.sources[name]._replace(shape=shape) for name, shape in shapes.items()}
        try:
            sizes.size_nodes(
                self.model.graph.node, self.sources | given, _opset(self.model), _NO_LIMITS, section="at these sizes"
            )
        except EmptyAxis:
            raise
        except ArtifactError:
            return  # whatever else is wrong with these sizes, ONNX Runtime says as it runs


def check_graph(
    data: bytes,
    record: GraphRecord,
    bound: Mapping[str, Bound],
    constants: Mapping[str, NDArray[Any]],
    limits: Limits,
) -> CheckedGraph:
    """Parse and validate a serialized model.

    ``bound`` has type and shape of every bound initializer, ``constants`` the values of the small ones, on which shapes
    may depend.
    """
    model = protobuf.parse_message(data, limits)
    opset = _opset(model)
    graph = model.graph
    if len(graph.node) > limits.nodes:
        raise ArtifactError(f"it has {len(graph.node)} nodes, more than the limit of {limits.nodes}")
    _check_names(graph)
    symbols: dict[str, int] = {}
    known = _inputs(graph, record, symbols)
    for name, initializer in bound.items():
        constant = constants.get(name)
        sized = Sized(
            ELEMENT_TYPES[initializer.dtype], initializer.shape, constant, constant is not None, constant=True
        )
        _add(known, name, sized)
    for tensor in graph.initializer:
        array = protobuf.tensor_values(tensor)
        followed = array if array.size <= SMALL_VALUE else None
        _add(known, tensor.name, Sized(tensor.data_type, array.shape, followed, fixed=True, constant=True))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                protobuf.tensor_values(attribute.t)
    for name, item in known.items():
        if elements(item.shape) > limits.value_elements:
            raise ArtifactError(f"{name!r} has more than {limits.value_elements} elements")
    sources = dict(known)
    sizes.size_nodes(graph.node, known, opset, limits, section=f"graph {record.name}")
    made = {name: sized for name, sized in known.items() if name not in sources}
    _check_outputs(record.outputs, made, symbols)
    _check_activations(record, made | {port.name: known[port.name] for port in record.inputs})
    _check_dynamic(record, graph.node, known, {name for name, sized in sources.items() if sized.constant})
    return CheckedGraph(model, sources, known)


def _opset(model: onnx.ModelProto) -> int:
    versions: list[int] = [item.version for item in model.opset_import]
    if len(versions) != 1 or not MIN_OPSET <= versions[0] <= MAX_OPSET:
        raise ArtifactError(f"opset {versions} is not one from {MIN_OPSET} to {MAX_OPSET}")
    if not MIN_IR <= model.ir_version <= MAX_IR:
        raise ArtifactError(f"ONNX IR {model.ir_version} is not one from {MIN_IR} to {MAX_IR}")
    return versions[0]


def _check_names(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        for name in (node.op_type, node.name, *node.input, *node.output):
            if name and (len(name) > _MAX_NAME or not _NAME.fullmatch(name)):
                raise ArtifactError(f"{name[:80]!r} is not a name of 1 to {_MAX_NAME} printable characters")


def _inputs(graph: onnx.GraphProto, record: GraphRecord, symbols: dict[str, int]) -> dict[str, Sized]:
    """Return the inputs at their example sizes; the ports of graph and record must match."""
    for ports, infos, what in ((record.inputs, graph.input, "inputs"), (record.outputs, graph.output, "outputs")):
        if len(ports) != len(infos) or any(port_info(port) != info for port, info in zip(ports, infos, strict=True)):
            raise ArtifactError(f"the {what} of the graph do not match its record")
    if not record.outputs:
        raise ArtifactError("the graph has no output")
    known: dict[str, Sized] = {}
    for port in record.inputs:
        if port.example is None or 0 in port.example or not _fits(port, port.example, symbols):
            fault = f"cannot have the example sizes {port.example}"
            raise ArtifactError(f"the input {port.name!r} of shape {port.shape} {fault}")
        _add(known, port.name, Sized(ELEMENT_TYPES[port.dtype], port.example))
    return known


def _fits(port: Port, shape: Shape, symbols: dict[str, int]) -> bool:
    """Return whether ``shape`` fits the port; ``symbols`` maps symbolic axes to sizes and is extended."""
    return len(shape) == len(port.shape) and all(
        size == (axis if isinstance(axis, int) else symbols.setdefault(axis, size))
        for axis, size in zip(port.shape, shape, strict=True)
    )


def _add(known: dict[str, Sized], name: str, sized: Sized) -> None:
    if not name or name in known:
        raise ArtifactError(f"{name!r} is the name of two of an input, a binding and an initializer")
    known[name] = sized


def _check_outputs(ports: Sequence[Port], made: Mapping[str, Sized], symbols: dict[str, int]) -> None:
    names = Counter(port.name for port in ports)
    for port in ports:
        sized = made.get(port.name)
        if sized is None or names[port.name] > 1:
            raise ArtifactError(f"the output {port.name!r} is not made by a node or appears twice")
        if sized.type != ELEMENT_TYPES[port.dtype] or not _fits(port, sized.shape, symbols):
            raise ArtifactError(
                f"the output {port.name!r} is {TYPES[sized.type]}{list(sized.shape)} at the example sizes; "
                f"its record says {port.dtype}{list(port.shape)}"
            )


def _check_activations(record: GraphRecord, values: Mapping[str, Sized]) -> None:
    seen: set[str] = set()
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    for activation in record.activations:
        name, zero_point, low, high = activation.value, activation.zero_point, activation.qmin, activation.qmax
        with naming_section(f"graph {record.name}, activation {name!r}"):
            if name in seen or name not in values:
                raise ArtifactError("it is not an input or a node's output, or appears twice")
            seen.add(name)
            if values[name].type != onnx.TensorProto.FLOAT:
                raise ArtifactError("only float32 values can be quantized")
            if not least <= activation.scale <= most:
                raise ArtifactError(f"the scale {activation.scale} is not a positive normal float32")
            if not low <= zero_point <= high:
                raise ArtifactError(f"the zero point {zero_point} is outside {low}..{high}")


def _check_dynamic(
    record: GraphRecord, nodes: Sequence[onnx.NodeProto], values: Mapping[str, Sized], initializers: Collection[str]
) -> None:
    named = Counter(node.name for node in nodes)
    known = {node.name: node for node in nodes}
    for name, count in Counter(record.dynamic).items():
        with naming_section(f"graph {record.name}, dynamic node {name!r}"):
            if count > 1 or named[name] != 1:
                raise ArtifactError("it is not the name of one node, or appears twice")
            node = known[name]
            if node.op_type not in DYNAMIC:
                raise ArtifactError(f"{node.op_type} is not {', '.join(sorted(DYNAMIC))}")
            if values[node.input[0]].type != onnx.TensorProto.FLOAT:
                raise ArtifactError("only float32 values can be quantized")
            if node.op_type in ("LSTM", "GRU"):
                _check_recurrent(node, values, initializers)
    for name, count in Counter(record.rows).items():
        with naming_section(f"graph {record.name}, rows of node {name!r}"):
            if count > 1 or name not in record.dynamic or known[name].op_type not in ROW_SCALED:
                raise ArtifactError(f"it is no dynamic {' or '.join(sorted(ROW_SCALED))}, or appears twice")
            if any(item.name == "transA" and item.i for item in known[name].attribute):
                raise ArtifactError("rows of a transposed first input cannot be scaled")


def _check_recurrent(node: onnx.NodeProto, values: Mapping[str, Sized], initializers: Collection[str]) -> None:
    """Raise unless the weights of a dynamic LSTM or GRU are initializers, and its gates the usual ones."""
    found = {item.name: item.i for item in node.attribute}
    plain = {"layout": 0, "input_forget": 0} if node.op_type == "LSTM" else {"layout": 0, "linear_before_reset": 1}
    others = found.keys() - plain.keys() - {"direction", "hidden_size"}
    if others or any(found.get(name, 0) != value for name, value in plain.items()):
        raise ArtifactError(f"a dynamic {node.op_type} has no attributes but direction, hidden_size and {plain}")
    if any(node.input[7:]):
        raise ArtifactError("a dynamic LSTM has no peepholes")
    if any(name and name not in initializers for name in node.input[1:4]):
        raise ArtifactError("its weights and biases have to be initializers")
    both = 2 if any(item.s == b"bidirectional" for item in node.attribute) else 1
    hidden, gates = found["hidden_size"], 4 if node.op_type == "LSTM" else 3
    width = values[node.input[0]].shape[-1:]
    shapes = ((both, gates * hidden, *width), (both, gates * hidden, hidden), (both, 2 * gates * hidden))
    for name, shape in zip(node.input[1:4], shapes, strict=False):
        if name and (values[name].shape != shape or values[name].type != onnx.TensorProto.FLOAT):
            raise ArtifactError(f"its weights or biases {name!r} have to be float32 of the shape {shape}")
