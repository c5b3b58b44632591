"""Unplaced: values that quantized layers read or make and that stay in floating point; below the stage and the rule."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import fx

from attar._src.model.operators import kind_of
from attar._src.model.sites import find_sites


def unquantized_values(
    graph: fx.GraphModule, placed: Collection[str], *, skip: Callable[[fx.Node], bool] = lambda _: False
) -> dict[str, str]:
    """Return the values on no grid -> the reason: sites that have no place, and attention in one operation.

    Args:
        graph: the traced graph.
        placed: the sources of the sites that are held to a grid.
        skip: products whose inputs need not be quantized (layers kept in floating point).
    """
    every = find_sites(graph, {node.name for node in graph.graph.nodes}, skip=skip)
    left = {name: "the deployed graph has no place for its grid" for s in every for name in s.sources}
    left = {name: why for name, why in left.items() if name not in placed}
    inside = [node.name for node in graph.graph.nodes if kind_of(node) == "attention"]
    return left | dict.fromkeys(inside, "attention's own products stay in floating point")
