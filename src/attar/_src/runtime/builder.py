"""Builder of a lowered ONNX model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_LARGE = 1024  # bytes from which an initializer stays outside the messages
_EXTERNAL = onnx.TensorProto.EXTERNAL


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
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        self._made[name] = onnx.TensorProto(name=name, data_type=kind, dims=array.shape, data_location=_EXTERNAL)
        self._made[name].external_data.add(key="location", value="memory")

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

    def finish(self) -> onnx.ModelProto:
        """Return the model, without inline initializers that nothing reads, and without the data of ``weights``."""
        model, graph = self._source, self._source.graph
        read = {name for node in self._nodes for name in node.input} | {value.name for value in graph.output}
        kept = [tensor for name, tensor in self._constants.items() if name in read]
        made = onnx.helper.make_graph(self._nodes, graph.name, graph.input, graph.output, [*kept, *self._made.values()])
        private = sorted({node.domain for node in self._nodes} - {each.domain for each in model.opset_import})
        opsets = [*model.opset_import, *(onnx.helper.make_opsetid(domain, 1) for domain in private)]
        return onnx.helper.make_model(made, ir_version=model.ir_version, opset_imports=opsets)


def node_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
