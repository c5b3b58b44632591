"""Parse a graph's protobuf message and refuse fields that a file must not have (``docs/format.md``, section 5)."""

from __future__ import annotations

import math
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from numpy.typing import NDArray

from attar._src.artifact.graph.operators import TYPES
from attar._src.artifact.limits import Limits
from attar._src.core.errors import ArtifactError

SMALL_BYTES = 64  # of an inline initializer or a tensor in an attribute
_FIELDS_A_NODE = 16

_TENSOR_DATA = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data")
#: Message -> fields that may be set. Ports (ValueInfoProto) are compared with their records instead.
_ALLOWED = {
    "onnx.ModelProto": {"ir_version", "opset_import", "graph"},
    "onnx.OperatorSetIdProto": {"version"},
    "onnx.GraphProto": {"name", "node", "initializer", "input", "output"},
    "onnx.NodeProto": {"name", "op_type", "input", "output", "attribute"},
    "onnx.AttributeProto": set(),  # depends on its type
    "onnx.TensorProto": {"name", "dims", "data_type", *_TENSOR_DATA},
}
#: Attribute type -> the one field that holds its value.
_HOLDS: dict[int, str] = {
    onnx.AttributeProto.FLOAT: "f",
    onnx.AttributeProto.INT: "i",
    onnx.AttributeProto.STRING: "s",
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.FLOATS: "floats",
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.STRINGS: "strings",
}


def parse_message(data: bytes, limits: Limits) -> onnx.ModelProto:
    """Parse a model of at most 16 fields per node of the limit, none of them unknown or forbidden."""
    most = _FIELDS_A_NODE * limits.nodes
    # A field takes at least two bytes, so a short message cannot have too many.
    if len(data) > 2 * most and (count := _fields(data, onnx.ModelProto.DESCRIPTOR, most)) > most:
        raise ArtifactError(
            f"it has at least {count} protobuf fields; the limit is 16 for each of {limits.nodes} nodes"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ArtifactError("it is not an ONNX model") from error
    size = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != size:
        raise ArtifactError("it has fields that ONNX does not know")
    _check_fields(model)
    return model


def tensor_values(tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return the values of a numeric tensor of at most 64 bytes in a graph."""
    if tensor.data_type not in TYPES or len(tensor.dims) > 16 or any(size < 0 for size in tensor.dims):
        raise ArtifactError(f"the constant {tensor.name!r} is not a tensor of numbers")
    itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    if math.prod(max(size, 1) for size in tensor.dims) * itemsize > SMALL_BYTES:
        advice = "store it as a tensor and bind it"
        raise ArtifactError(f"the constant {tensor.name!r} has more than {SMALL_BYTES} bytes; {advice}")
    elements = math.prod(tensor.dims)
    lengths = {field.name: len(value) for field, value in tensor.ListFields() if field.name in _TENSOR_DATA}
    holder = "raw_data" if "raw_data" in lengths else next(iter(lengths), "")
    expected = {holder: elements * (itemsize if holder == "raw_data" else 1)} if elements else {}
    if {name: length for name, length in lengths.items() if length} != expected:
        raise ArtifactError(f"the data of the constant {tensor.name!r} does not fit its shape")
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtifactError(f"the constant {tensor.name!r} cannot be read: {error}") from error


def _fields(data: bytes, descriptor: Any, most: int) -> int:
    """Count the fields of a message and its nested messages; stop beyond ``most`` or at malformed data."""
    stack = [(0, len(data), descriptor)]
    count = 0
    while stack and count <= most:
        at, stop, kind = stack.pop()
        while at < stop and count <= most:
            count += 1
            key, at = _varint(data, at, stop)
            wire = key & 7
            if wire == 0:
                _, at = _varint(data, at, stop)
            elif wire == 2:
                length, at = _varint(data, at, stop)
                field = kind.fields_by_number.get(key >> 3)
                if field is not None and field.message_type is not None:
                    stack.append((at, min(at + length, stop), field.message_type))
                at += length
            else:
                at += {1: 8, 5: 4}.get(wire, stop)  # ONNX has no groups; the parser will reject them
    return count


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at


def _check_fields(message: Message) -> None:
    allowed = _ALLOWED[message.DESCRIPTOR.full_name]
    if isinstance(message, onnx.AttributeProto):
        allowed = {"name", "type", _HOLDS.get(message.type, "type")}
    for field, value in message.ListFields():
        if field.name not in allowed:
            fault = f"{message.DESCRIPTOR.name} must not have the field {field.name!r} in a file"
            raise ArtifactError(f"{fault}; allowed are {', '.join(sorted(allowed))}")
        items = [value] if isinstance(value, Message | str | bytes | int | float) else value
        if field.type == field.TYPE_STRING and not all(isinstance(item, str) for item in items):
            raise ArtifactError(f"a {field.name} of {message.DESCRIPTOR.name} is not UTF-8")
        if field.message_type is not None and field.message_type.full_name != "onnx.ValueInfoProto":
            for item in items:
                _check_fields(item)
