"""Operators: those a graph may hold, and what a node of one may look like (``docs/format.md``, section 5).

Left out on purpose: control flow and functions, strings, sequences and optionals, random numbers and training,
operators whose output size depends on data (``NonZero``, ``Unique``, ``Compress``), and arithmetic on quantized
tensors, which a runtime adds by itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnx

MIN_OPSET, MAX_OPSET = 13, 25
MIN_IR, MAX_IR = 7, 13

_PRODUCTS = "Attention Conv ConvTranspose Gemm MatMul Einsum"
_NORMALIZATIONS = """
    BatchNormalization InstanceNormalization LayerNormalization GroupNormalization RMSNormalization LRN
    LpNormalization MeanVarianceNormalization"""
_RECURRENCE = "LSTM GRU RNN"
_ACTIVATIONS = """
    Celu Clip Elu Erf Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu Shrink Sigmoid
    Softmax Softplus Softsign Swish Tanh ThresholdedRelu"""
_ELEMENTWISE = """
    Abs Add And BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Cos Div Equal Exp Floor Greater
    GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or Pow Reciprocal Round Sign
    Sin Sqrt Sub Sum Where Xor"""
_REDUCTIONS = """
    ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare TopK"""
_IMAGES = """
    AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool DepthToSpace SpaceToDepth GridSample
    Resize"""
_SHAPES = """
    Concat ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND OneHot Pad Range Reshape
    ReverseSequence ScatterElements ScatterND Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze"""

#: Operators of the standard domain that a graph may hold.
OPERATORS = frozenset(
    " ".join(
        (_PRODUCTS, _NORMALIZATIONS, _RECURRENCE, _ACTIVATIONS, _ELEMENTWISE, _REDUCTIONS, _IMAGES, _SHAPES)
    ).split()
)

#: ONNX's numbers of the element types a graph may compute with, and its names for them.
TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "tensor(float)",
    onnx.TensorProto.FLOAT16: "tensor(float16)",
    onnx.TensorProto.BFLOAT16: "tensor(bfloat16)",
    onnx.TensorProto.DOUBLE: "tensor(double)",
    onnx.TensorProto.INT8: "tensor(int8)",
    onnx.TensorProto.INT16: "tensor(int16)",
    onnx.TensorProto.INT32: "tensor(int32)",
    onnx.TensorProto.INT64: "tensor(int64)",
    onnx.TensorProto.UINT8: "tensor(uint8)",
    onnx.TensorProto.UINT16: "tensor(uint16)",
    onnx.TensorProto.UINT32: "tensor(uint32)",
    onnx.TensorProto.UINT64: "tensor(uint64)",
    onnx.TensorProto.BOOL: "tensor(bool)",
}

MAX_INT = 2**31 - 1  # beyond it products of two numbers may overflow in kernels
_MAX_RANK = 16
_POSITIVE = """
    strides dilations kernel_shape group blocksize num_groups num_outputs hidden_size p q_num_heads kv_num_heads"""
#: Ranges of integers in attributes, by name; all others are 0 to 2^31 - 1. Inference and kernels trust some of them.
_RANGES: dict[str, tuple[int, int]] = dict.fromkeys(_POSITIVE.split(), (1, MAX_INT))
_RANGES |= dict.fromkeys(("axis", "axes"), (-_MAX_RANK, _MAX_RANK))
_RANGES |= dict.fromkeys(("start", "end", "k"), (-MAX_INT, MAX_INT))
_MAX_ITEMS = 64
_EQUATION = re.compile(rb"[A-Za-z., >-]{1,128}")


class Formal(NamedTuple):
    """One formal input of an operator: the types it takes; all inputs of one constraint are of one type."""

    types: frozenset[str]
    constraint: str | None
    optional: bool


class Operator(NamedTuple):
    """What ONNX says of an operator at an opset.

    Attributes:
        schema: ONNX's own description.
        inputs: formal inputs; the last stands for all that follow where the operator takes any number.
        input_count: fewest and most inputs.
        output_count: fewest and most outputs.
        attributes: type and whether it is required, by name.
    """

    schema: onnx.defs.OpSchema
    inputs: tuple[Formal, ...]
    input_count: tuple[int, int]
    output_count: tuple[int, int]
    attributes: Mapping[str, tuple[Any, bool]]


class Refused(ValueError):
    """A node that a graph may not hold; the message says why."""


@functools.lru_cache(maxsize=1024)
def operator(name: str, opset: int) -> Operator:
    """Return what ONNX says of an operator of the standard domain.

    Raises:
        Refused: the operator is not one a graph may hold, or not at this opset.
    """
    if name not in OPERATORS:
        raise Refused(f"the operator {name!r} may not be in a file")
    try:
        schema = onnx.defs.get_schema(name, opset, "")
    except onnx.defs.SchemaError as error:
        raise Refused(f"the operator {name} is not in opset {opset}") from error
    if schema.deprecated:
        raise Refused(f"the operator {name} is deprecated in opset {opset}")
    return Operator(
        schema,
        tuple(
            Formal(
                frozenset(item.types),
                item.type_str if item.is_homogeneous else None,
                item.option == onnx.defs.OpSchema.FormalParameterOption.Optional,
            )
            for item in schema.inputs
        ),
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        {key: (item.type, item.required) for key, item in schema.attributes.items()},
    )


def read_attributes(node: onnx.NodeProto, known: Operator) -> dict[str, Any]:
    """Return a node's attributes by name, each of its type and in a range that is safe for inference and kernels.

    Raises:
        Refused: an attribute is unknown, missing, twice, of another type, or out of range.
    """
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        name = attribute.name
        if name in found or name not in known.attributes or int(known.attributes[name][0]) != attribute.type:
            raise Refused(f"the attribute {name!r} is unknown, twice, or not of its type")
        value = found[name] = onnx.helper.get_attribute_value(attribute)
        items = value if isinstance(value, list) else [value]
        if len(items) > _MAX_ITEMS:
            raise Refused(f"the attribute {name!r} has {len(items)} items; at most {_MAX_ITEMS} may be")
        least, most = _RANGES.get(name, (0, MAX_INT))
        if any(isinstance(item, int) and not least <= item <= most for item in items):
            raise Refused(f"the attribute {name!r} is outside {least}..{most}: {items}")
    missing = [name for name, (_, required) in known.attributes.items() if required and name not in found]
    if missing:
        raise Refused(f"the attribute {missing[0]!r} is missing")
    if "equation" in found and not _EQUATION.fullmatch(found["equation"]):
        raise Refused("the equation is not one of letters, dots, commas and an arrow")
    return found


def check_types(known: Operator, types: Sequence[str | None]) -> None:
    """Check the inputs' types (None where an optional one is absent) against the operator's.

    Raises:
        Refused: an input is missing, too many, or of a type the operator does not take.
    """
    least, most = known.input_count
    if not least <= len(types) <= most:
        raise Refused(f"{len(types)} inputs are not the {least} to {most} it takes")
    if types and types[-1] is None:
        raise Refused("its last input is absent; leave it out")
    chosen: dict[str, str] = {}
    for index, found in enumerate(types):
        formal = known.inputs[min(index, len(known.inputs) - 1)]
        if found is None:
            if not formal.optional:
                raise Refused(f"input {index} is missing")
        elif found not in formal.types:
            raise Refused(f"input {index} is a {found}, which it does not take")
        elif formal.constraint and chosen.setdefault(formal.constraint, found) != found:
            raise Refused(f"input {index} is a {found} where another input is a {chosen[formal.constraint]}")
