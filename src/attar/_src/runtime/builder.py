"""A lowered ONNX model, and what builds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from attar._src.core.errors import ArtifactError

_LARGE = 1024  # bytes from which an initializer stays outside the messages
_EXTERNAL = onnx.TensorProto.EXTERNAL
_MESSAGE = 2**31 - 2**26  # protobuf's limit of 2 GiB, less room for the graph


class Placement(NamedTuple):
    """The stored tensors of a layer's weight, and why it cannot use an integer kernel; empty if it can."""

    tensors: tuple[str, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Lowered:
    """A lowered model and its plan.

    Attributes:
        bare: standard ONNX, in which large weights are marked as external data.
        weights: these weights by name.
        layers: node of the model that reads a weight of two axes or more -> its placement.
        dequantized: compressed tensor of the file -> why it was converted to float32.
        saturating: nodes whose pairs of products may pass 16 bits, where fast kernels of some processors saturate.
    """

    bare: onnx.ModelProto
    weights: Mapping[str, NDArray[Any]]
    layers: Mapping[str, Placement]
    dequantized: Mapping[str, str]
    saturating: frozenset[str]

    @cached_property
    def model(self) -> onnx.ModelProto:
        """Standard ONNX with all weights.

        Raises:
            ArtifactError: the weights exceed the 2 GiB limit of a protobuf message.
        """
        weights = sum(array.nbytes for array in self.weights.values()) + self.bare.ByteSize()
        if weights > _MESSAGE:
            raise ArtifactError(f"its weights take {weights} bytes in ONNX; the limit is {_MESSAGE}", section="graph")
        full = onnx.ModelProto()
        full.CopyFrom(self.bare)
        for tensor in full.graph.initializer:
            if tensor.name in self.weights:
                tensor.CopyFrom(numpy_helper.from_array(self.weights[tensor.name], tensor.name))
        return full

    def serialized(self) -> bytes:
        """Return ``model`` as bytes."""
        data: bytes = self.model.SerializeToString()
        return data


class Builder:
    """Collects nodes, in order, and initializers that replace those of ``source``.

    The source's inputs, outputs, operator sets and inline initializers are kept. ``reserved`` names are not used.
    """

    def __init__(self, source: onnx.ModelProto, reserved: Iterable[str] = ()) -> None:
        self._source = source
        self._constants = {tensor.name: tensor for tensor in source.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[str, onnx.TensorProto] = {}
        #: Initializers too large to be copied from message to message, by name.
        self.weights: dict[str, NDArray[Any]] = {}
        self._scalars: dict[tuple[str, bytes], str] = {}
        self._count: Counter[str] = Counter()
        graph = source.graph
        self._taken = {*reserved, *self._constants, *(value.name for value in (*graph.input, *graph.output))}
        self._taken.update(name for node in graph.node for name in (node.name, *node.input, *node.output))

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the value of an initializer of the source or added, None for any other name."""
        if name in self.weights:
            return self.weights[name]
        tensor = self._constants.get(name) or self._made.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def fresh(self, name: str) -> str:
        """Return an unused name: ``name``, else ``name_1``, ``name_2``, ..."""
        free = name
        while free in self._taken:
            self._count[name] += 1
            free = f"{name}_{self._count[name]}"
        self._taken.add(free)
        return free

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Add an initializer with exactly this name."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        if array.nbytes < _LARGE:
            self._made[name] = numpy_helper.from_array(array, name)
            return
        self.weights[name] = array
        self._made[name] = external(name, array)

    def initializer(self, name: str, array: NDArray[Any]) -> str:
        """Add an initializer with an unused name like ``name`` and return its name."""
        free = self.fresh(name)
        self.put(free, array)
        return free

    def scalar(self, array: NDArray[Any], name: str) -> str:
        """Return the name of an initializer with this value, shared by equal values."""
        key = (f"{array.dtype.str}{array.shape}", array.tobytes())
        if key not in self._scalars:
            self._scalars[key] = self.initializer(name, array)
        return self._scalars[key]

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        self._nodes.append(onnx.helper.make_node(op, inputs, [output], name=self.fresh(f"{op}_{output}"), **attributes))
        return output

    def add(self, node: onnx.NodeProto) -> None:
        """Add a node of unused output names."""
        self._nodes.append(node)

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Add a node of the source with other inputs and outputs."""
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.input[:], twin.output[:] = inputs, outputs
        self._nodes.append(twin)

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return max((item.version for item in self._source.opset_import if item.domain in ("", "ai.onnx")), default=0)

    def finish(self) -> onnx.ModelProto:
        """Return the model, without inline initializers that nothing reads, and without the data of ``weights``."""
        model, graph = self._source, self._source.graph
        nodes = [*_with_inner(self._nodes)]
        read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
        kept = [tensor for name, tensor in self._constants.items() if name in read]
        made = onnx.helper.make_graph(self._nodes, graph.name, graph.input, graph.output, [*kept, *self._made.values()])
        private = sorted({node.domain for node in nodes} - {each.domain for each in model.opset_import})
        opsets = [*model.opset_import, *(onnx.helper.make_opsetid(domain, 1) for domain in private)]
        return onnx.helper.make_model(made, ir_version=model.ir_version, opset_imports=opsets)


def external(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    """Return an initializer whose data lie outside the model."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    made = onnx.TensorProto(name=name, data_type=kind, dims=array.shape, data_location=_EXTERNAL)
    made.external_data.add(key="location", value="memory")
    return made


def _with_inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Return nodes and those of the graphs inside them, which read values of the graph around them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _with_inner(attribute.g.node)


def node_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
