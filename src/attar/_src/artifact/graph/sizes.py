"""Infer type and shape of every value of a graph at the example sizes, and the small values that shapes depend on.

ONNX's shape inference runs one node at a time: attributes, types and values of a node are checked before it and the
size of its outputs right after, so that nothing is computed with a number above the limits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from attar._src.artifact.graph import guards, operators, values
from attar._src.artifact.graph.emptiness import check_elements
from attar._src.artifact.graph.guards import Sized
from attar._src.artifact.graph.operators import TYPES
from attar._src.artifact.graph.work import check_window, multiply_adds
from attar._src.artifact.limits import Limits
from attar._src.core.errors import ArtifactError, naming_section
from attar._src.core.scheme import Shape

_FOLLOWED = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.FLOAT}
#: ONNX defines these as functions and infers no shape; their output has the type and shape of their input.
_LIKE_INPUT = {"GroupNormalization", "MeanVarianceNormalization"}
_MOVES = 8  # how often a stored weight may be moved or cast before it is used


def size_nodes(
    nodes: Sequence[onnx.NodeProto], known: dict[str, Sized], opset: int, limits: Limits, *, section: str
) -> None:
    """Add every output of ``nodes`` to ``known``, which starts with inputs and initializers."""
    bound = [sized for sized in known.values() if sized.constant]
    total = sum(guards.elements(sized.shape) for sized in known.values())
    folded = -_MOVES * sum(guards.elements(sized.shape) for sized in bound)
    work = 0
    for index, node in enumerate(nodes):
        with naming_section(f"{section}, node {index} ({node.op_type} {node.name!r})"[:200]):
            made, took = _size_node(node, known, opset, limits)
            known |= made
            total += sum(guards.elements(sized.shape) for sized in made.values())
            if total > limits.graph_elements:
                raise ArtifactError(f"all values together have more than {limits.graph_elements} elements")
            if (work := work + took) > limits.work:
                raise ArtifactError(f"the nodes up to it take more than {limits.work} multiply-adds")
            if all(sized.constant for sized in made.values()) and (folded := folded + took) > limits.folded:
                what = f"constants alone would take more than {limits.folded} multiply-adds"
                raise ArtifactError(f"{what} as the file is opened; store the result instead")


def _size_node(
    node: onnx.NodeProto, known: Mapping[str, Sized], opset: int, limits: Limits
) -> tuple[dict[str, Sized], int]:
    """Return the outputs of one node, and its multiply-adds."""
    operator = operators.operator(node.op_type, opset)
    attributes = operators.read_attributes(node, operator)
    if undefined := [name for name in node.input if name and name not in known]:
        raise ArtifactError(f"the input {undefined[0]!r} is not defined: no node before this one makes it")
    items = [known.get(name) for name in node.input]
    operators.check_types(operator, [None if item is None else TYPES[item.type] for item in items])
    outputs = _outputs(node, operator, known)
    inputs = guards.Inputs(attributes, items)
    check_elements(node.op_type, inputs)
    check_window(node.op_type, inputs)
    read = guards.check_values(node.op_type, inputs, limits)
    found = _infer(node, inputs, read, opset)
    made = {name: _output(name, found, limits) for name in outputs}
    if len(outputs) == 1:
        made[outputs[0]] = _follow(node.op_type, inputs, made[outputs[0]])
    # Sizes count as constants: those that are not known before a run are followed by little.
    if node.op_type in ("Shape", "Size") or all(item is None or item.constant for item in items):
        made = {name: sized._replace(constant=True) for name, sized in made.items()}
    return made, multiply_adds(node.op_type, inputs, [*made.values()])


def _infer(node: onnx.NodeProto, inputs: guards.Inputs, read: dict[int, Any], opset: int) -> dict[str, onnx.TypeProto]:
    """Return the types of a node's outputs by ONNX's shape inference; ``read`` are the input values it may use."""
    data = {name: onnx.numpy_helper.from_array(read[i], name) for i, name in enumerate(node.input) if i in read}
    types = {
        name: _tensor_type(item.type, item.shape)
        for name, item in zip(node.input, inputs.items, strict=True)
        if item is not None
    }
    if node.op_type in _LIKE_INPUT:
        return {node.output[0]: types[node.input[0]]}
    schema, imports = operators.operator(node.op_type, opset).schema, [onnx.OperatorSetIdProto(version=opset)]
    try:
        return onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    except Exception as error:
        raise ArtifactError(str(error)) from error


@functools.lru_cache(maxsize=4096)
def _tensor_type(kind: int, shape: Shape) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(kind, shape)


def _outputs(node: onnx.NodeProto, operator: operators.Operator, known: Mapping[str, Sized]) -> list[str]:
    """Return the names of a node's outputs without empty ones."""
    least, most = operator.output_count
    names = [name for name in node.output if name]
    distinct = len(set(names)) == len(names) and names[-1:] == list(node.output[-1:])
    if not (least <= len(node.output) <= most and distinct):
        raise ArtifactError(f"the outputs {names[:8]} are not {max(least, 1)} to {most} distinct names")
    if taken := [name for name in names if name in known]:
        raise ArtifactError(f"the output {taken[0]!r} exists already")
    return names


def _output(name: str, found: Mapping[str, onnx.TypeProto], limits: Limits) -> Sized:
    tensor = found[name].tensor_type if name in found else onnx.TypeProto.Tensor()
    if tensor.elem_type not in TYPES:
        raise ArtifactError(f"the output {name!r} is not a tensor of numbers")
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise ArtifactError(f"the size of the output {name!r} does not follow from the example sizes")
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    if any(size < 0 for size in shape) or len(shape) > 16:
        raise ArtifactError(f"the output {name!r} has the invalid shape {shape}")
    if (count := guards.elements(shape)) > limits.value_elements:
        raise ArtifactError(f"the output {name!r} has {count} elements, more than the limit of {limits.value_elements}")
    return Sized(tensor.elem_type, shape)


def _follow(name: str, inputs: guards.Inputs, made: Sized) -> Sized:
    """Return a node's output with its values, if they are few and known."""
    if made.type not in _FOLLOWED or guards.elements(made.shape) > values.SMALL_VALUE:
        return made
    dtype = onnx.helper.tensor_dtype_to_np_dtype(made.type)
    items = [item for item in inputs.items if item is not None]
    if name == "Shape":  # (8, 3, 32, 32) with start=1 -> [3, 32, 32]
        bounds = slice(inputs.attributes.get("start", 0), inputs.attributes.get("end"))
        return made._replace(values=np.asarray(items[0].shape[bounds], np.int64))
    if name == "Size":
        return made._replace(values=np.asarray(math.prod(items[0].shape)))
    if name == "ConstantOfShape":
        fill = inputs.attributes.get("value")
        value = 0 if fill is None else onnx.numpy_helper.to_array(fill).item()
        return made._replace(values=np.full(made.shape, value, dtype), fixed=items[0].fixed)
    arrays = [item.values for item in items if item.values is not None]
    if len(arrays) != len(inputs.items):
        return made
    found = values.evaluate_node(name, values.Call(inputs.attributes, arrays, made.shape), dtype)
    return made._replace(values=found, fixed=found is not None and all(item.fixed for item in items))
