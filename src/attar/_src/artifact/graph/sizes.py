"""Infer type and shape of every value of a graph at the example sizes, and the small values that shapes depend on.

ONNX's shape inference runs one node at a time: attributes, types and values of a node are checked before it and the
size of its outputs right after, so that nothing is computed with a number above the limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.artifact.graph import guards, operators, values
from attar._src.artifact.graph.operators import MAX_INT, TYPES
from attar._src.artifact.limits import Limits
from attar._src.core.errors import ArtifactError, naming_section
from attar._src.core.scheme import Shape

_FOLLOWED = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.FLOAT}
#: ONNX defines these as functions and infers no shape; their output has the type and shape of their input.
_LIKE_INPUT = {"GroupNormalization", "MeanVarianceNormalization"}


class Sized(NamedTuple):
    """Type, shape and, if known, values of one value of a graph.

    Attributes:
        type: ONNX number of the element type.
        shape: the shape at the example sizes.
        values: the values, if they are few and follow from constants and sizes alone.
        fixed: whether ``values`` are the same at every size of the inputs.
    """

    type: int
    shape: Shape
    values: NDArray[Any] | None = None
    fixed: bool = False


def size_nodes(
    nodes: Sequence[onnx.NodeProto], known: dict[str, Sized], opset: int, limits: Limits, *, section: str
) -> None:
    """Add every output of ``nodes`` to ``known``, which starts with inputs and initializers.

    Raises:
        ArtifactError: a node is not allowed, reads an undefined name, redefines one, or exceeds a limit.
    """
    total = sum(guards.elements(sized.shape) for sized in known.values())
    for index, node in enumerate(nodes):
        with naming_section(f"{section}, node {index} ({node.op_type} {node.name!r})"[:200]):
            made = _size_node(node, known, opset, limits)
            known |= made
            total += sum(guards.elements(sized.shape) for sized in made.values())
            if total > limits.graph_elements:
                raise ArtifactError(f"all values together have more than {limits.graph_elements} elements")


def _size_node(node: onnx.NodeProto, known: Mapping[str, Sized], opset: int, limits: Limits) -> dict[str, Sized]:
    """Return the outputs of one node."""
    operator = operators.operator(node.op_type, opset)
    attributes = operators.read_attributes(node, operator)
    inputs = [_input(name, known) for name in node.input]
    facts = guards.Inputs(
        attributes,
        types=[None if item is None else TYPES[item.type] for item in inputs],
        shapes=[None if item is None else item.shape for item in inputs],
        values=[None if item is None else item.values for item in inputs],
        fixed=[item is not None and item.fixed for item in inputs],
    )
    operators.check_types(operator, facts.types)
    outputs = _outputs(node, operator, known)
    guards.check_values(node.op_type, facts, limits)
    types = {
        name: onnx.helper.make_tensor_type_proto(item.type, item.shape)
        for name, item in zip(node.input, inputs, strict=True)
        if item is not None
    }
    data = {}
    for index in guards.VALUE_INPUTS.get(node.op_type, ()):
        if index < len(inputs) and (value := facts.values[index]) is not None:
            # Bounds of Slice keep their meaning when clipped to 32 bits.
            value = np.clip(value, -MAX_INT, MAX_INT) if node.op_type == "Slice" else value
            data[node.input[index]] = onnx.numpy_helper.from_array(value, node.input[index])
    if node.op_type in _LIKE_INPUT:
        found = {node.output[0]: types[node.input[0]]}
    else:
        found = _infer(node, operator.schema, types, data, opset)
    made = {name: _output(name, found, limits) for name in outputs}
    if len(outputs) == 1:
        made[outputs[0]] = _follow(node.op_type, facts, inputs, made[outputs[0]])
    return made


def _infer(
    node: onnx.NodeProto,
    schema: onnx.defs.OpSchema,
    types: dict[str, onnx.TypeProto],
    data: dict[str, onnx.TensorProto],
    opset: int,
) -> dict[str, onnx.TypeProto]:
    imports = [onnx.OperatorSetIdProto(version=opset)]
    try:
        return onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    except Exception as error:
        raise ArtifactError(str(error)) from error


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


def _input(name: str, known: Mapping[str, Sized]) -> Sized | None:
    if not name:
        return None
    if name not in known:
        raise ArtifactError(f"the input {name!r} is not defined: no node before this one makes it")
    return known[name]


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


def _follow(name: str, facts: guards.Inputs, inputs: Sequence[Sized | None], made: Sized) -> Sized:
    """Return a node's output with its values, if they are few and known."""
    if made.type not in _FOLLOWED or guards.elements(made.shape) > values.SMALL_VALUE:
        return made
    dtype = onnx.helper.tensor_dtype_to_np_dtype(made.type)
    if name == "Shape":
        return made._replace(values=values.value_shape(facts.attributes, facts.shapes[0] or ()))
    if name == "Size":
        return made._replace(values=np.asarray(math.prod(facts.shapes[0] or ())))
    if name == "ConstantOfShape":
        fill = facts.attributes.get("value")
        value = 0 if fill is None else onnx.numpy_helper.to_array(fill).item()
        return made._replace(values=np.full(made.shape, value, dtype), fixed=facts.fixed[0])
    arrays = [value for value in facts.values if value is not None]
    if len(arrays) != len(inputs):
        return made
    found = values.evaluate_node(name, values.Call(facts.attributes, arrays, made.shape), dtype)
    return made._replace(values=found, fixed=found is not None and all(facts.fixed))
