"""Strip a graph for writing: weights, metadata and everything else that is not computation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx

from attar._src.artifact.contents import GraphContents
from attar._src.artifact.manifest import Port
from attar._src.core.tensors import DTYPES

#: Element type of a file -> ONNX number.
ELEMENT_TYPES = {name: onnx.helper.np_dtype_to_tensor_dtype(dtype) for name, dtype in DTYPES.items()}
ELEMENT_TYPES["bf16"] = onnx.TensorProto.BFLOAT16  # numpy holds its bits as uint16


def strip(contents: GraphContents, *, compact: bool = True) -> bytes:
    """Return the serialized model with nothing but operators, small constants, inputs and outputs.

    Dropped are bound initializers, metadata, doc strings, producer, value infos, and the paths exporters put in them.
    ``Constant`` nodes become initializers. Inputs and outputs are written from the ports. If ``compact``, the names of
    nodes that nothing refers to and attributes at their default are dropped, too.
    """
    bound = {binding.to for binding in contents.bindings}
    source = contents.model
    model = onnx.ModelProto(ir_version=source.ir_version)
    model.opset_import.extend(
        onnx.OperatorSetIdProto(version=item.version) if item.domain in ("", "ai.onnx") else item
        for item in source.opset_import
    )
    graph = model.graph
    graph.name = contents.name
    graph.input.extend(port_info(port) for port in contents.inputs)
    graph.output.extend(port_info(port) for port in contents.outputs)
    for tensor in source.graph.initializer:
        if tensor.name not in bound:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].ClearField("doc_string")
    for node in source.graph.node:
        if (value := _constant(node)) is not None:
            graph.initializer.add().CopyFrom(value)
            continue
        kept = graph.node.add()
        kept.CopyFrom(node)
        for field in ("doc_string", "metadata_props", *(["domain"] if node.domain == "ai.onnx" else [])):
            kept.ClearField(field)
        for attribute in kept.attribute:
            attribute.ClearField("doc_string")
        for names in (kept.input, kept.output):
            while names and not names[-1]:  # empty trailing names
                names.pop()
        if compact:
            _shorten(kept, named=contents.dynamic, opset=max((item.version for item in model.opset_import), default=0))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def port_info(port: Port) -> onnx.ValueInfoProto:
    """Return a port as an ONNX ValueInfoProto."""
    return onnx.helper.make_tensor_value_info(port.name, ELEMENT_TYPES[port.dtype], list(port.shape))


def _shorten(node: onnx.NodeProto, *, named: Collection[str], opset: int) -> None:
    """Drop a node's name, unless it is in ``named``, and attributes that have the default of their operator."""
    if node.name not in named:
        node.ClearField("name")
    try:
        known = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes
    except onnx.defs.SchemaError:
        return  # the check of the graph refuses it and says why
    kept = [attribute for attribute in node.attribute if not _is_default(attribute, known)]
    if len(kept) < len(node.attribute):
        kept = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in kept]
        del node.attribute[:]
        node.attribute.extend(kept)


def _is_default(attribute: onnx.AttributeProto, known: Mapping[str, Any]) -> bool:
    default = known[attribute.name].default_value if attribute.name in known else None
    if default is None or default.type != attribute.type:
        return False
    return bool(onnx.helper.get_attribute_value(default) == onnx.helper.get_attribute_value(attribute))


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the value of a numeric ``Constant`` node, named like its output; None for any other node."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    value = onnx.helper.get_attribute_value(node.attribute[0])
    match node.attribute[0].name:
        case "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value)
            tensor.ClearField("doc_string")
            tensor.name = node.output[0]
            return tensor
        case "value_float" | "value_floats":
            kind = onnx.TensorProto.FLOAT
        case "value_int" | "value_ints":
            kind = onnx.TensorProto.INT64
        case _:
            return None
    many = isinstance(value, list)
    return onnx.helper.make_tensor(node.output[0], kind, [len(value)] if many else [], value if many else [value])
