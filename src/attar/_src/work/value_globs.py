"""Values that globs select, by their names or by the layers that read them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import fx

from attar._src.core.errors import UnknownName
from attar._src.model.operators import data_of
from attar._src.model.weights import find_weights


def matching_values(graphs: Mapping[str, fx.GraphModule], globs: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return graph -> the values matched, and the inputs of the layers matched.

    Args:
        graphs: deployed graphs by name.
        globs: of layers or their weights, or of values.

    Raises:
        UnknownName: a glob matches nothing; the error lists the nearest layers.
    """
    inputs = {name: inputs_of_layers(graph) if globs else {} for name, graph in graphs.items()}
    found, missed = {}, list(globs)
    for name, graph in graphs.items():
        chosen = set[str]()
        for glob in globs:
            layers = [read for weight, read in inputs[name].items() if _matches(weight, glob)]
            values = {node.name for node in graph.graph.nodes if fnmatchcase(node.name, glob)}
            chosen |= values.union(*layers)
            if (layers or values) and glob in missed:
                missed.remove(glob)
        found[name] = frozenset(chosen)
    if missed:
        raise UnknownName("layer", missed[0], {w.rpartition(".")[0] or w for each in inputs.values() for w in each})
    return found


def layer_reading(graph: fx.GraphModule, values: Collection[str]) -> str:
    """Return the first layer that multiplies one of these values by a weight; empty if none does."""
    reading: Iterable[str] = (name for name, read in inputs_of_layers(graph).items() if not read.isdisjoint(values))
    return next((name.removesuffix(".weight") for name in reading), "")


def inputs_of_layers(graph: fx.GraphModule) -> dict[str, set[str]]:
    """Return weight -> the values that it multiplies."""
    nodes = {node.name: node for node in graph.graph.nodes}
    inputs = {}
    for name, weight in find_weights(graph).items():
        data = [argument for reader in weight.readers for argument in data_of(nodes[reader])]
        inputs[name] = {argument.name for argument in data if isinstance(argument, fx.Node)}
    return inputs


def _matches(weight: str, glob: str) -> bool:
    return fnmatchcase(weight, glob) or fnmatchcase(weight.rpartition(".")[0], glob)
