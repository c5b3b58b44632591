"""Constant nodes of a program: those that depend on parameters and buffers alone, never on an input."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_map

from attar._src.model.operators import moves, operator_of


def constant_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose value is the same for all inputs.

    Random values are not, and neither are values that the program changes in place, or views of which it changes.
    """
    changed = {_base(value) for node in graph.nodes for value in _written(node)}
    constant: set[fx.Node] = set()
    for node in graph.nodes:
        called = node.op == "call_function" and constant.issuperset(node.all_input_nodes) and not _is_random(node)
        if (node.op == "get_attr" or called) and node not in changed:
            constant.add(node)
    return constant


def merge_equal(graph: fx.GraphModule) -> None:
    """Let equal constant nodes be one, in place: a shared layer computes its weight anew at each of its uses."""
    first: dict[Any, fx.Node] = {}
    constant = constant_nodes(graph.graph)
    for node in list(graph.graph.nodes):
        if node not in constant:
            continue
        args, kwargs = tree_map(str, (node.args, node.kwargs))
        # The arguments are merged already, so that equal calls read nodes of the same name.
        known = first.setdefault((node.op, str(node.target), str(args), str(kwargs)), node)
        if known is not node:
            node.replace_all_uses_with(known)
            graph.graph.erase_node(node)
    graph.recompile()


def is_move(node: fx.Node) -> bool:
    """Whether a node only moves the elements of a tensor, or selects some by indices.

    It may write zeros, as padding does.
    """
    row = operator_of(node)
    return node.target is operator.getitem or row.identity or row.selects or (moves(node) and row.onnx != "MaxPool")


def evaluate(graph: fx.GraphModule, nodes: Iterable[fx.Node]) -> dict[fx.Node, torch.Tensor]:
    """Return the values of constant nodes, with gradient to the parameters; the state of the graph does not change."""
    values: dict[fx.Node, Any] = {}
    wanted = list(nodes)
    if not wanted:
        return {}
    needed = _ancestors(wanted)
    for node in graph.graph.nodes:
        if node not in needed:
            continue
        if node.op == "get_attr":
            value = attrgetter(str(node.target))(graph)
            # An estimate of a spectral norm writes into its buffers.
            values[node] = value.clone() if isinstance(value, torch.Tensor) and not value.requires_grad else value
        else:
            args, kwargs = _given(node, values)
            values[node] = node.target(*args, **kwargs)
    return {node: values[node] for node in wanted}


def _given(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    return tree_map(lambda a: values[a] if isinstance(a, fx.Node) else a, (node.args, node.kwargs))


def _ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes and all that they depend on."""
    found: set[fx.Node] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(node.all_input_nodes)
    return found


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and not operator_of(node).identity


def _written(node: fx.Node) -> list[fx.Node]:
    """Return the values that a node changes in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable or operator_of(node).identity:
        return []
    written = [argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments]
    return [value for value, write in zip(node.args, written, strict=False) if write and isinstance(value, fx.Node)]


def _base(node: fx.Node) -> fx.Node:
    """Return the value that a node is a view of, itself if of none."""
    while is_move(node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node
