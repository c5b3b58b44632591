"""Sites: the places in a traced graph where activations can be quantized, found by structure.

A value is a site where an integer kernel would read it:

- the data inputs of products (convolutions, linear layers, matrix products), and the outputs of convolutions;
- the inputs of additions, means and average pools whose own output is a site (both sides of a residual addition, also
  through the activation that follows it), so that they run in integers too;
- what a value is made of by moving elements only (slices, padding, pooling by maximum, reshapes): the same grid holds
  on both sides, so these form one group with one scale.

An activation function directly behind a product or an addition fuses into it, so the site is behind the function.

The values of a site are those that the ONNX graph has too; where the exporter computes something in another way than
the trace, so that a value to be rounded is not there, there is no site.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from attar._src.core.operators import OperatorRow
from attar._src.model.operators import data_of, is_zero, kind_of, moves, operator_of


@dataclass(frozen=True)
class Site:
    """Values that share one grid.

    Attributes:
        values: node names (and so ONNX value names), in graph order.
        sources: those among them that are computed rather than moved: what is observed and rounded.
    """

    values: tuple[str, ...]
    sources: tuple[str, ...]


def find_sites(
    graph: fx.GraphModule, deployed: Collection[str], *, skip: Callable[[fx.Node], bool] = lambda _: False
) -> tuple[Site, ...]:
    """Return the sites of a traced graph.

    Args:
        graph: a traced graph in evaluation mode.
        deployed: the names of the values that the ONNX graph has.
        skip: products whose inputs need not be quantized (layers kept in floating point).
    """
    order = {node: position for position, node in enumerate(graph.graph.nodes)}
    activations = _activations(graph)
    group: dict[fx.Node, fx.Node] = {}

    def find(node: fx.Node) -> fx.Node:
        while group[node] is not node:
            node = group[node]
        return node

    products = {n: row for n in graph.graph.nodes if (row := _product(n)) is not None and not skip(n)}
    todo = [value for node in products for value in data_of(node) if isinstance(value, fx.Node)]
    todo += [value for node, row in products.items() if row.writes_codes for value in _behind(node)]
    while todo:
        value = todo.pop()
        if value in group or value not in activations:
            continue
        group[value] = value
        if moves(value):
            todo.extend(value.all_input_nodes)
        else:
            behind = data_of(value)[0] if kind_of(value) == "clip" else value
            if isinstance(behind, fx.Node) and kind_of(behind) == "pass" and _only_activations(behind, activations):
                todo.extend(behind.all_input_nodes)
    for value in group:
        if moves(value):
            for source in value.all_input_nodes:
                if source in group:
                    first, second = sorted((find(value), find(source)), key=order.__getitem__)
                    group[second] = first
    members: dict[fx.Node, list[fx.Node]] = {}
    for value in sorted(group, key=order.__getitem__):
        members.setdefault(find(value), []).append(value)
    sites = [Site(_names(values), _names(v for v in values if not _is_moved(v, group))) for values in members.values()]
    return tuple(
        Site(tuple(name for name in site.values if name in deployed), site.sources)
        for site in sites
        if all(name in deployed for name in site.sources)
    )


def _product(node: fx.Node) -> OperatorRow | None:
    """Return the row of a product that an integer kernel can serve, None for other nodes."""
    row = operator_of(node)
    return row if row is not None and row.kind in ("layer", "product") and row.in_integers else None


def _behind(convolution: fx.Node) -> list[fx.Node]:
    """Return the value an integer convolution would write: its own, or that of the activation that fuses into it."""
    users = list(convolution.users)
    out = users[0] if len(users) == 1 and kind_of(users[0]) == "clip" else convolution
    # What leaves the graph is not rounded.
    return [] if any(user.op == "output" for user in out.users) else [out]


def _activations(graph: fx.GraphModule) -> set[fx.Node]:
    """Return the floating values that depend on an input: no parameters, and nothing made of parameters alone."""
    flowing: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or (node.op == "call_function" and not flowing.isdisjoint(node.all_input_nodes)):
            flowing.add(node)
    return {node for node in flowing if _is_floating(node.meta.get("val"))}


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _only_activations(node: fx.Node, activations: set[fx.Node]) -> bool:
    """True where every operand is a floating activation: no parameter, no scalar, no rescaling."""
    return not node.kwargs and all(isinstance(operand, fx.Node) and operand in activations for operand in data_of(node))


def _is_moved(node: fx.Node, group: dict[fx.Node, fx.Node]) -> bool:
    """True where every element of the value comes from another value of the group."""
    # A parameter that is joined to activations is on no grid: the joint value is rounded itself.
    inputs = [n for n in node.all_input_nodes if not is_zero(n)]
    joined = [n for n in inputs if n.op == "get_attr" or _is_floating(n.meta.get("val"))]
    return moves(node) and all(source in group for source in joined)


def _names(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    return tuple(node.name for node in nodes)
