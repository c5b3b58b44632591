"""The operators a graph may hold, and checks of their attributes and input types (``docs/format.md``, section 5).

Excluded on purpose: control flow and functions, strings, sequences and optionals, random numbers and training,
operators whose output size depends on data (``NonZero``, ``Unique``, ``Compress``), and arithmetic on quantized
tensors, which the runtime inserts itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnx

from attar._src.core.errors import ArtifactError

MIN_OPSET, MAX_OPSET = 13, 25
MIN_IR, MAX_IR = 7, 13

# Products, normalizations, recurrence, activations, element-wise, reductions, images, shapes.
_OPERATORS = """
    Attention Conv ConvTranspose Gemm MatMul Einsum
    BatchNormalization InstanceNormalization LayerNormalization GroupNormalization RMSNormalization LRN
    LpNormalization MeanVarianceNormalization
    LSTM GRU RNN
    Celu Clip Elu Erf Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu Shrink Sigmoid
    Softmax Softplus Softsign Swish Tanh ThresholdedRelu
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Cos Cosh
    Div Equal Exp Floor Greater GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or
    Pow Reciprocal Round Sign Sin Sinh Sqrt Sub Sum Tan Where Xor
    ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare TopK
    AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool DepthToSpace SpaceToDepth GridSample
    Resize
    Concat ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND OneHot Pad Range Reshape
    ReverseSequence ScatterElements ScatterND Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze"""
#: Operators of the standard domain that a graph may hold.
OPERATORS = frozenset(_OPERATORS.split())
#: Those that may quantize their data as they read it.
DYNAMIC = frozenset({"Gemm", "MatMul", "LSTM", "GRU"})
#: Those among them that may scale the rows of their data.
ROW_SCALED = frozenset({"Gemm", "MatMul"})

_NAMES = "float float16 bfloat16 double int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"
#: ONNX element types a graph may compute with: number -> name.
TYPES: dict[int, str] = {onnx.TensorProto.DataType.Value(name.upper()): f"tensor({name})" for name in _NAMES.split()}

MAX_INT = 2**31 - 1  # products of two larger numbers may overflow in kernels
_MAX_RANK = 16
_POSITIVE = """
    strides dilations kernel_shape group blocksize num_groups num_outputs hidden_size p q_num_heads kv_num_heads"""
#: Ranges of integer attributes; all others are 0 to 2^31 - 1. Shape inference and kernels trust some of them unchecked.
_RANGES: dict[str, tuple[int, int]] = dict.fromkeys(_POSITIVE.split(), (1, MAX_INT))
_RANGES |= dict.fromkeys(("axis", "axes"), (-_MAX_RANK, _MAX_RANK))
_RANGES |= dict.fromkeys(("start", "end", "k"), (-MAX_INT, MAX_INT))
_MAX_ITEMS = 64
_EQUATION = re.compile(rb"[A-Za-z., >-]{1,128}")


class Formal(NamedTuple):
    """A formal input of an operator: its types, and its type constraint (inputs that share one have the same type)."""

    types: frozenset[str]
    constraint: str | None
    optional: bool


class Operator(NamedTuple):
    """ONNX's description of an operator at an opset.

    The last input repeats if the operator is variadic; counts are minimum and maximum; attributes map a name to its
    type and whether it is required.
    """

    schema: onnx.defs.OpSchema
    inputs: tuple[Formal, ...]
    input_count: tuple[int, int]
    output_count: tuple[int, int]
    attributes: Mapping[str, tuple[Any, bool]]


@functools.lru_cache(maxsize=1024)
def operator(name: str, opset: int) -> Operator:
    """Return the description of an operator of the standard domain."""
    if name not in OPERATORS:
        raise ArtifactError(f"the operator {name!r} is not allowed in a file")
    try:
        schema = onnx.defs.get_schema(name, opset, "")
    except onnx.defs.SchemaError as error:
        raise ArtifactError(f"the operator {name} is not in opset {opset}") from error
    if schema.deprecated:
        raise ArtifactError(f"the operator {name} is deprecated in opset {opset}")
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    return Operator(
        schema,
        tuple(
            Formal(frozenset(item.types), item.type_str if item.is_homogeneous else None, item.option == optional)
            for item in schema.inputs
        ),
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        {key: (item.type, item.required) for key, item in schema.attributes.items()},
    )


def read_attributes(node: onnx.NodeProto, known: Operator) -> dict[str, Any]:
    """Return a node's attributes by name, with types and ranges that are safe for shape inference and kernels."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        name = attribute.name
        if name in found or name not in known.attributes or int(known.attributes[name][0]) != attribute.type:
            raise ArtifactError(f"the attribute {name!r} is unknown, given twice or of the wrong type")
        value = found[name] = onnx.helper.get_attribute_value(attribute)
        items = value if isinstance(value, list) else [value]
        if len(items) > _MAX_ITEMS:
            raise ArtifactError(f"the attribute {name!r} has {len(items)} items; the limit is {_MAX_ITEMS}")
        least, most = _RANGES.get(name, (0, MAX_INT))
        if any(isinstance(item, int) and not least <= item <= most for item in items):
            raise ArtifactError(f"the attribute {name!r} is outside {least}..{most}: {items}")
    if missing := [name for name, (_, required) in known.attributes.items() if required and name not in found]:
        raise ArtifactError(f"the attribute {missing[0]!r} is missing")
    if "equation" in found and not _EQUATION.fullmatch(found["equation"]):
        raise ArtifactError("an equation may hold only letters, dots, commas, spaces and an arrow, at most 128 of them")
    return found


def check_types(known: Operator, types: Sequence[str | None]) -> None:
    """Check input types (None for an absent optional input) against the operator's."""
    least, most = known.input_count
    if not least <= len(types) <= most:
        raise ArtifactError(f"it has {len(types)} inputs and takes {least} to {most}")
    if types and types[-1] is None:
        raise ArtifactError("its last input is empty; leave it out")
    chosen: dict[str, str] = {}
    for index, found in enumerate(types):
        formal = known.inputs[min(index, len(known.inputs) - 1)]
        if found is None:
            if not formal.optional:
                raise ArtifactError(f"input {index} is missing")
        elif found not in formal.types:
            raise ArtifactError(f"input {index} is a {found}, which it does not accept")
        elif formal.constraint and chosen.setdefault(formal.constraint, found) != found:
            raise ArtifactError(f"input {index} is a {found} but another input is a {chosen[formal.constraint]}")
