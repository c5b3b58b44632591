"""What the weights of recurrent layers multiply, as values of a graph.

An operator such as ``aten.lstm.input`` computes all layers of a stack at once. In each direction of layer l

    weight_ih multiplies x_t: the input of the stack, or the output of layer l - 1,
    weight_hh multiplies h_(t-1): the initial state, then the layer's own output, one step before,

and all rows of the gates multiply the same vector.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from attar._src.model.operators import argument, operator_of
from attar._src.model.programs import copy_graph


def expose_inputs(graph: fx.GraphModule) -> tuple[fx.GraphModule, dict[tuple[str, str], str]]:
    """Return a graph with nodes for what recurrent weights multiply, and (reader, weight) -> the name of the value.

    Values are ``(time, batch, features)``; behind the end of a packed sequence they are zero. The given graph is not
    changed, and returned itself if it has no recurrent layer.
    """
    if not any(operator_of(node).kind == "recurrent" for node in graph.graph.nodes):
        return graph, {}
    graph, found = copy_graph(graph), {}
    for node in list(graph.graph.nodes):
        if operator_of(node).kind != "recurrent":
            continue
        names = [each.name for each in node.target._schema.arguments]
        given = {name: argument(node, name) for name in names}
        with graph.graph.inserting_after(node):
            last = made = graph.graph.call_function(recurrent_inputs, (node.target, given))
        for place, at in enumerate(_weights(given)):
            with graph.graph.inserting_after(last):
                last = graph.graph.call_function(operator.getitem, (made, place))
            if given["params"][at].op == "get_attr":
                found[node.name, str(given["params"][at].target)] = last.name
    graph.recompile()
    return graph, found


def recurrent_biases(node: fx.Node) -> list[tuple[str, str]]:
    """Return the names of each bias of a recurrent layer and of the weight whose products it is added to."""
    given = {each.name: argument(node, each.name) for each in node.target._schema.arguments}  # type: ignore[union-attr]
    pairs = [(given["params"][at + 2], given["params"][at]) for at in _weights(given)] if given["has_biases"] else []
    return [(str(bias.target), str(weight.target)) for bias, weight in pairs if {bias.op, weight.op} == {"get_attr"}]


def recurrent_inputs(target: Any, given: dict[str, Any]) -> list[Tensor]:
    """Return what the weights of a stack multiply: of each layer and direction that of ``weight_ih``, ``weight_hh``.

    Args:
        target: the operator, such as ``aten.lstm.input``.
        given: its arguments by name.
    """
    x, params, directions = given["input"], given["params"], _directions(given)
    states = given["hx"] if isinstance(given["hx"], Tensor) else given["hx"][0]
    x = x.transpose(0, 1) if given.get("batch_first") else x
    if (lengths := given.get("lengths")) is not None:
        x = _running(x, lengths)
    each, size, found = len(params) // (given["num_layers"] * directions), states.shape[2], []
    for layer in range(given["num_layers"]):
        part = slice(layer * directions, (layer + 1) * directions)
        hx = given["hx"][part] if isinstance(given["hx"], Tensor) else [state[part] for state in given["hx"]]
        own = params[part.start * each : part.stop * each]
        changed = {"input": x, "hx": hx, "params": own, "num_layers": 1, "batch_first": False}
        output = target(*({**given, **changed}[name] for name in given))[0]
        before = torch.cat([states[part.start, None], output[:-1, :, :size]])
        found += [x, before if lengths is None else _running(before, lengths)]
        if directions == 2:
            found += [x, _reversed(output[:, :, size:], states[part.start + 1], lengths)]
        x = output
    return found


def _running(x: Tensor, lengths: Tensor) -> Tensor:
    """Return values with zeros behind the end of each sequence."""
    return torch.where(torch.arange(len(x))[:, None, None] < lengths.cpu()[None, :, None], x, 0.0)


def _reversed(output: Tensor, state: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the states before each step of a layer that runs from the end of each sequence to its beginning."""
    after = torch.cat([output[1:], state[None]])
    if lengths is None:
        return after
    places = torch.arange(len(output))[:, None, None]
    ends = lengths.cpu()[None, :, None]
    return torch.where(places == ends - 1, state[None], _running(after, lengths))


def _directions(given: dict[str, Any]) -> int:
    return 2 if given["bidirectional"] else 1


def _weights(given: dict[str, Any]) -> Iterator[int]:
    """Yield the position of ``weight_ih`` and ``weight_hh`` of each layer and direction."""
    count = given["num_layers"] * _directions(given)
    each = len(given["params"]) // count
    for run in range(count):
        for place in range(2):
            yield run * each + place
