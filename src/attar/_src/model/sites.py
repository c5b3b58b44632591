"""Sites: the places in a traced graph where activations can be quantized, found by structure.

A value is a site if an integer kernel would read it:

- the data inputs of products (convolutions, linear layers, matrix products) with a weight or of two activations, and
  the outputs of convolutions;
- the inputs of additions, means and average pools whose own output is a site (both sides of a residual addition, also
  through the activation behind it), so that they run in integers too;
- what it is moved from (slices, padding, pooling by maximum, reshapes): one grid holds on both sides of a move, so
  these values form one group with one scale.

An activation function directly behind a product or an addition fuses into it, so the site is behind the function.
A group is no site if the ONNX graph lacks a value to be rounded, because the exporter computes it in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import fx

from attar._src.core.operators import OperatorRow
from attar._src.model.operators import data_of, is_floating, is_zero, kind_of, moves, operator_of
from attar._src.model.weights import find_weights


@dataclass(frozen=True)
class Site:
    """Values that share one grid.

    Attributes:
        values: node names (and so ONNX value names), in graph order.
        sources: those that are computed, not moved: they are observed and rounded.
        multiplied: whether a product reads one of the values; others are only added, averaged or returned.
    """

    values: tuple[str, ...]
    sources: tuple[str, ...]
    multiplied: bool = True


def find_sites(
    graph: fx.GraphModule,
    deployed: Collection[str],
    *,
    skip: Callable[[fx.Node], bool] = lambda _: False,
    floating: Collection[str] = (),
) -> tuple[Site, ...]:
    """Return the sites of a traced graph.

    Args:
        graph: a traced graph in evaluation mode.
        deployed: the names of the values of the ONNX graph.
        skip: products whose inputs need not be quantized (layers kept in floating point).
        floating: the names of values that stay in floating point, with all that they are moved from or to.
    """
    sites = []
    activations = _activations(graph)
    products = _products(graph, activations, skip)
    read = {value for node in products for value in data_of(node) if isinstance(value, fx.Node)}
    written = {value for node, row in products.items() if row.writes_codes for value in _written(node)}
    groups = _groups(graph, _integer_values(read | written, activations))
    if floating:
        kept = {node for group in groups if any(node.name in floating for node in group) for node in group}
        groups = _groups(graph, _integer_values(read | written, activations, kept))
    for group in groups:
        sources = tuple(node.name for node in group if not _is_moved(node, group))
        if all(name in deployed for name in sources):
            values = tuple(node.name for node in group if node.name in deployed)
            sites.append(Site(values, sources, not read.isdisjoint(group)))
    return tuple(sites)


def _products(
    graph: fx.GraphModule, activations: Collection[fx.Node], skip: Callable[[fx.Node], bool]
) -> dict[fx.Node, OperatorRow]:
    """Return the products that integer kernels would compute."""
    weighted = {name for weight in find_weights(graph).values() for name in weight.readers}
    return {
        node: row
        for node in graph.graph.nodes
        if _is_product(row := operator_of(node)) and not skip(node) and _has_codes(node, weighted, activations)
    }


def _integer_values(
    coded: Collection[fx.Node], activations: set[fx.Node], floating: Collection[fx.Node] = ()
) -> set[fx.Node]:
    """Return the values that integer kernels would read or write (``coded``), and those they are moved or added up
    from."""
    todo = [*coded]
    found: set[fx.Node] = set()
    while todo:
        value = todo.pop()
        if value in found or value in floating or value not in activations:
            continue
        found.add(value)
        if moves(value):
            todo.extend(value.all_input_nodes)
        else:
            behind = data_of(value)[0] if kind_of(value) == "clip" else value
            if isinstance(behind, fx.Node) and kind_of(behind) == "pass" and _only_activations(behind, activations):
                todo.extend(behind.all_input_nodes)
    return found


def _groups(graph: fx.GraphModule, values: set[fx.Node]) -> list[list[fx.Node]]:
    """Return the values that moves connect, each group in graph order, by their first nodes."""
    group_of: dict[fx.Node, list[fx.Node]] = {}
    order = {node: position for position, node in enumerate(graph.graph.nodes)}
    for value in sorted(values, key=order.__getitem__):
        group_of[value] = [value]
        for source in value.all_input_nodes if moves(value) else ():
            if source in values and group_of[source] is not group_of[value]:
                joined = [*group_of[source], *group_of[value]]
                group_of |= dict.fromkeys(joined, joined)
    groups = {id(group): sorted(group, key=order.__getitem__) for group in group_of.values()}
    return sorted(groups.values(), key=lambda group: order[group[0]])


def _is_product(row: OperatorRow) -> bool:
    """Whether an integer kernel can serve a product."""
    return row.kind in ("layer", "product") and row.in_integers


def _has_codes(product: fx.Node, weighted: Collection[str], activations: Collection[fx.Node]) -> bool:
    """Whether both factors can have codes: a weight and an activation, or two activations, not a constant matrix."""
    return product.name in weighted or sum(each in activations for each in product.all_input_nodes) > 1


def _written(convolution: fx.Node) -> list[fx.Node]:
    """Return the value an integer convolution would write: its own, or that of the activation that fuses into it."""
    users = list(convolution.users)
    out = users[0] if len(users) == 1 and kind_of(users[0]) == "clip" else convolution
    # Outputs of the graph are not rounded.
    return [] if any(user.op == "output" for user in out.users) else [out]


def _activations(graph: fx.GraphModule) -> set[fx.Node]:
    """Return the floating-point values that depend on an input."""
    flowing: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or (node.op == "call_function" and not flowing.isdisjoint(node.all_input_nodes)):
            flowing.add(node)
    return set(filter(is_floating, flowing))


def _only_activations(node: fx.Node, activations: set[fx.Node]) -> bool:
    """Whether every operand is a floating-point activation: no parameter, no scalar, no factor (``alpha`` of add)."""
    return not node.kwargs and all(isinstance(operand, fx.Node) and operand in activations for operand in data_of(node))


def _is_moved(node: fx.Node, group: Collection[fx.Node]) -> bool:
    """Whether every element of the value comes from another value of the group."""
    # A parameter joined to activations has no grid, so the joint value itself is rounded.
    inputs = [each for each in node.all_input_nodes if each.op == "get_attr" or is_floating(each)]
    return moves(node) and all(each in group for each in inputs if not is_zero(each))
