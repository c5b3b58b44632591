"""Inputs and outputs of an exported ONNX graph: their names, and the ports that describe them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import onnx
import onnx_ir
import torch
from torch import fx

from attar._src.artifact.manifest import Port
from attar._src.core.errors import ModelError

_TYPES: dict[int, Any] = {
    onnx.TensorProto.FLOAT: "f32",
    onnx.TensorProto.INT64: "i64",
    onnx.TensorProto.INT32: "i32",
    onnx.TensorProto.INT8: "i8",
    onnx.TensorProto.UINT8: "u8",
    onnx.TensorProto.BOOL: "bool",
}


def describe_ports(
    model: onnx.ModelProto, example: Sequence[torch.Tensor], batch: Sequence[int]
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Describe inputs and outputs; the exporter's symbols become ``batch`` and ``axis1``, in the graph too.

    ``batch`` has the axis of each input that counts the examples.
    """
    symbols: dict[str, str] = {}
    given = zip(model.graph.input, example, batch, strict=True)
    inputs = [_port(value, symbols, tensor, own) for value, tensor, own in given]
    return tuple(inputs), tuple(_port(value, symbols) for value in model.graph.output)


def _port(
    value: onnx.ValueInfoProto, symbols: dict[str, str], example: torch.Tensor | None = None, batch: int = 0
) -> Port:
    """Describe an input, which names new symbols, or an output, which has no example."""
    shape: list[int | str] = []
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value"):
            shape.append(dim.dim_value)
            continue
        if example is not None and dim.dim_param not in symbols:
            # One axis counts the examples of every input; other lengths may differ between inputs.
            short = "batch" if axis == batch else f"axis{axis}"
            fresh = axis == batch or short not in symbols.values()
            symbols[dim.dim_param] = short if fresh else f"{value.name}_{short}"
        dim.dim_param = symbols.get(dim.dim_param, dim.dim_param or f"{value.name}_{axis}")
        shape.append(dim.dim_param)
    kind = value.type.tensor_type.elem_type
    if kind not in _TYPES:
        side, name = "output" if example is None else "input", onnx.TensorProto.DataType.Name(kind)
        raise ModelError(f"{side} {value.name!r} is {name}; use one of {[*_TYPES.values()]}")
    sizes = None if example is None else tuple(example.shape)
    return Port(name=value.name, dtype=_TYPES[kind], shape=tuple(shape), example=sizes)


def name_values(model: onnx_ir.Model, graph: fx.GraphModule, stored: Collection[str]) -> None:
    """Rename in both graphs the inner values that are called like a stored tensor: ``self.t`` and ``self.t.t()``."""
    nodes = {node.name: node for node in graph.graph.nodes if node.op == "call_function"}
    taken = {value.name for node in model.graph for value in node.outputs} | {*stored}
    taken |= {node.name for node in graph.graph.nodes}
    for node in model.graph:
        for value in node.outputs:
            name = value.name
            if name is None or name not in stored:
                continue
            number = 1
            while f"{name}_{number}" in taken:
                number += 1
            value.name = f"{name}_{number}"
            taken.add(value.name)
            if name in nodes:
                nodes[name]._rename(value.name)
    graph.recompile()


def name_inputs(model: onnx.ModelProto, graph: fx.GraphModule) -> None:
    """Give the inputs of the ONNX graph the names of the nodes: fx renames Python's own words (``input``)."""
    nodes = graph.graph.find_nodes(op="placeholder")
    names = {value.name: node.name for value, node in zip(model.graph.input, nodes, strict=True)}
    for value in model.graph.input:
        value.name = names[value.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def name_outputs(model: onnx.ModelProto, graph: fx.GraphModule, names: Sequence[str]) -> None:
    """Name the outputs of an ONNX graph, in place.

    The node that makes an output writes it under the new name; its other readers read an ``Identity`` under the old
    one, so that an output stays unrounded where its readers see it quantized. An inner value with an output's name is
    renamed in both graphs. An output with the name of an input or a stored tensor ends in ``_out``. Without names,
    outputs are called by their values; one that is an input or comes twice is numbered.

    Args:
        model: the exported graph.
        graph: the traced graph, whose nodes have the names of the values of ``model``.
        names: one for each output, or empty.
    """
    made = _made(model)
    fixed = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    # An output may be a parameter that no node reads.
    read = [*(name for node in model.graph.node for name in node.input), *(value.name for value in model.graph.output)]
    fixed |= {name for name in read if name and name not in made}
    used: set[str] = set()
    for position, value in enumerate(model.graph.output):
        wanted = names[position] if names else value.name
        if not names and (wanted in fixed or wanted in used):
            wanted = f"{wanted}_{position}"
        while wanted in fixed or wanted in used:
            wanted += "_out"
        used.add(wanted)
        if wanted != value.name:
            if wanted in _made(model):
                _rename(model, graph, wanted, {*fixed, *used, *names})
            old, value.name = value.name, wanted
            _make_as(model, old, wanted)


def _make_as(model: onnx.ModelProto, old: str, new: str) -> None:
    """Let the node that makes ``old`` make ``new``; readers of ``old`` read a copy."""
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


def _made(model: onnx.ModelProto) -> set[str]:
    """Return the names of the values that nodes make."""
    return {name for node in model.graph.node for name in node.output}


def _rename(model: onnx.ModelProto, graph: fx.GraphModule, name: str, used: set[str]) -> None:
    """Give an inner value another name in both graphs."""
    used = used | _made(model)
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
