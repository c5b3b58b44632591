"""Values that stay in floating point by request, while the weights they are multiplied by are compressed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import fx

from attar._src.core.errors import UnknownName
from attar._src.model.operators import data_of
from attar._src.model.weights import find_weights
from attar._src.work.compressed_model import CompressedGraph


def with_floating_values(graphs: Mapping[str, CompressedGraph], globs: Sequence[str]) -> dict[str, CompressedGraph]:
    """Return the graphs with the inputs of layers, and the values, that ``globs`` match left in floating point.

    Raises:
        UnknownName: a glob matches no layer and no value.
    """
    if not globs:
        return dict(graphs)
    found, matched, known = dict(graphs), set[str](), set[str]()
    for name, graph in graphs.items():
        deployed = graph.folded_later or graph.traced
        layers = _inputs_of_layers(deployed.graph)
        values = {node.name: {node.name} for node in deployed.graph.graph.nodes}
        chosen = set[str]()
        for glob, (called, inputs) in itertools.product(globs, [*layers.items(), *values.items()]):
            if fnmatchcase(called, glob) or (called in layers and fnmatchcase(called.rpartition(".")[0], glob)):
                matched.add(glob)
                chosen |= inputs
        known |= {called.rpartition(".")[0] or called for called in layers}
        found[name] = replace(graph, floating=graph.floating | chosen)
    for glob in globs:
        if glob not in matched:
            raise UnknownName("layer", glob, known)
    return found


def layer_reading(graph: fx.GraphModule, values: Collection[str]) -> str:
    """Return the first layer that multiplies one of these values by a weight; empty if none does."""
    reading = (name for name, inputs in _inputs_of_layers(graph).items() if not inputs.isdisjoint(values))
    return next((name.removesuffix(".weight") for name in reading), "")


def _inputs_of_layers(graph: fx.GraphModule) -> dict[str, set[str]]:
    """Return weight -> the values that it multiplies."""
    nodes = {node.name: node for node in graph.graph.nodes}
    inputs = {}
    for name, weight in find_weights(graph).items():
        data = [argument for reader in weight.readers for argument in data_of(nodes[reader])]
        inputs[name] = {argument.name for argument in data if isinstance(argument, fx.Node)}
    return inputs
