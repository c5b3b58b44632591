"""Inputs and outputs of an exported ONNX graph: their names, and the ports that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import fx

from attar._src.artifact.manifest import Port
from attar._src.core.errors import ModelError

_NAMES: dict[int, Any] = {
    onnx.TensorProto.FLOAT: "f32",
    onnx.TensorProto.INT64: "i64",
    onnx.TensorProto.INT32: "i32",
    onnx.TensorProto.INT8: "i8",
    onnx.TensorProto.UINT8: "u8",
    onnx.TensorProto.BOOL: "bool",
}


def name_inputs(model: onnx.ModelProto, graph: fx.GraphModule) -> None:
    """Give the inputs of the ONNX graph the names of the nodes: fx renames what is a word of Python (``input``)."""
    nodes = graph.graph.find_nodes(op="placeholder")
    names = {value.name: node.name for value, node in zip(model.graph.input, nodes, strict=True)}
    for value in model.graph.input:
        value.name = names[value.name]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)


def describe_ports(
    model: onnx.ModelProto, example: Sequence[torch.Tensor]
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Describe inputs and outputs, giving the exporter's symbols names a reader understands."""
    names: dict[str, str] = {}
    ports: list[list[Port]] = [[], []]
    for side, values in enumerate((model.graph.input, model.graph.output)):
        for position, value in enumerate(values):
            shape: list[int | str] = []
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.HasField("dim_value"):
                    shape.append(dim.dim_value)
                else:
                    if side == 0 and dim.dim_param not in names:
                        # Axis 0 counts examples in every input; other lengths may vary apart.
                        short = "batch" if axis == 0 else f"axis{axis}"
                        fresh = axis == 0 or short not in names.values()
                        names[dim.dim_param] = short if fresh else f"{value.name}_{short}"
                    name = names.get(dim.dim_param, dim.dim_param or f"{value.name}_{axis}")
                    dim.dim_param = name
                    shape.append(name)
            kind = _NAMES.get(value.type.tensor_type.elem_type)
            if kind is None:
                what = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
                raise ModelError(
                    f"{'output' if side else 'input'} {value.name!r} is {what}; use one of {[*_NAMES.values()]}"
                )
            ports[side].append(
                Port(
                    name=value.name,
                    dtype=kind,
                    shape=tuple(shape),
                    example=tuple(example[position].shape) if side == 0 else None,
                )
            )
    return tuple(ports[0]), tuple(ports[1])


def name_outputs(model: onnx.ModelProto, graph: fx.GraphModule, names: Sequence[str]) -> None:
    """Name the outputs of an ONNX graph, in place.

    The node that makes an output makes it under the new name; what else reads it reads an ``Identity`` under the old
    one, the name of the node of the traced graph. So an output stays unrounded where its readers see it quantized. An
    inner value that has an output's name gets another one in both graphs; an output that is called like an input or a
    stored tensor ends in ``_out``. Without names outputs are called by their values, and one that is an input or comes
    twice is numbered.

    Args:
        model: the exported graph.
        graph: the traced graph, whose nodes are called like the values of ``model``.
        names: one for each output, or none.
    """
    made = _values(model)
    fixed = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    fixed |= {name for node in model.graph.node for name in node.input if name and name not in made}
    used: set[str] = set()
    for position, value in enumerate(model.graph.output):
        wanted = names[position] if names else value.name
        if not names and (wanted in fixed or wanted in used):
            wanted = f"{wanted}_{position}"
        while wanted in fixed or wanted in used:
            wanted += "_out"
        used.add(wanted)
        if wanted != value.name:
            if wanted in _values(model):
                _rename(model, graph, wanted, {*fixed, *used, *names})
            old, value.name = value.name, wanted
            _make(model, old, wanted)


def _make(model: onnx.ModelProto, old: str, new: str) -> None:
    """Let the value ``old`` be made as ``new``; what else reads it reads a copy."""
    nodes = list(model.graph.node)
    place = next((index for index, node in enumerate(nodes) if old in node.output), None)
    read = any(old in node.input for node in nodes) or any(old == value.name for value in model.graph.output)
    if place is None:
        nodes.append(onnx.helper.make_node("Identity", [old], [new], name=f"node_{new}"))
    else:
        nodes[place].output[:] = [new if name == old else name for name in nodes[place].output]
        if read:
            nodes.insert(place + 1, onnx.helper.make_node("Identity", [new], [old], name=f"node_{new}"))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _values(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.output}


def _rename(model: onnx.ModelProto, graph: fx.GraphModule, name: str, used: set[str]) -> None:
    """Give an inner value another name in both graphs."""
    used = used | _values(model)
    node = next((node for node in graph.graph.nodes if node.name == name), None)
    number, fresh = 0, name
    while fresh in used:
        number += 1
        fresh = f"{name}_{number}"
        if node is not None:
            node._rename(fresh)
            fresh = node.name
    graph.recompile()
    for each in model.graph.node:
        each.input[:] = [fresh if value == name else value for value in each.input]
        each.output[:] = [fresh if value == name else value for value in each.output]
    for output in model.graph.output:
        output.name = fresh if output.name == name else output.name
