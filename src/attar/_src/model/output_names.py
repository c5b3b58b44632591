"""Names of outputs: the outputs of an ONNX graph get the paths that the module's own outputs have."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from torch import fx


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
