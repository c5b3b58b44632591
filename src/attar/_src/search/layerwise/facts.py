"""What is known of a model's layers before anything is tried."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import fx

from attar._src.core.errors import SpecError
from attar._src.model.weights import Weight, weight_input
from attar._src.search.layerwise.problem import LayerFacts
from attar._src.work.compressed_model import CompressedModel


def layer_facts(model: CompressedModel, names: Sequence[str]) -> list[LayerFacts]:
    """Return what is known of the layers of these weights, in the order in which data flow."""
    weights, state = model.weights(), model.state()
    order: dict[str, int] = {}
    found = []
    for graph in (each.traced.graph for each in model.graphs.values()):
        nodes = {node.name: (place, node) for place, node in enumerate(graph.graph.nodes)}
        for name in names:
            if name in order:
                continue
            weight, shape = weights.get(name), tuple(state[name].shape)
            readers = [nodes[each] for each in (weight.readers if weight else ()) if each in nodes]
            order[name] = min((place for place, _ in readers), default=len(nodes))
            found.append(_facts(name, shape, graph, weight, [node for _, node in readers]))
    return sorted(found, key=lambda each: order[each.name])


def _facts(
    name: str, shape: tuple[int, ...], graph: fx.GraphModule, weight: Weight | None, readers: Sequence[fx.Node]
) -> LayerFacts:
    elements = prod(shape)
    positions = sum(_positions(node, shape) for node in readers) or 1
    try:
        window = weight_input(graph, weight).window
    except SpecError:
        # A table, or a recurrent weight: rows of as many inputs as it is wide.
        return LayerFacts(name, shape[-1] if shape else 1, shape[0] if shape else 1, 1, 1, positions, elements)
    return LayerFacts(
        name,
        window.channels,
        elements // max(window.length, 1),
        max(window.kernel, default=1),
        max(window.stride, default=1),
        positions,
        elements,
        window.groups > 1 and window.groups == window.channels,
    )


def _positions(node: fx.Node, shape: Sequence[int]) -> int:
    """Return the number of positions of a layer's output for one example; sizes that vary count as one."""
    lengths = [each if isinstance(each, int) else 1 for each in getattr(node.meta.get("val"), "shape", ())[1:]]
    # (N, C, H, W) of a kernel, (N, T, C) of a linear layer.
    return max(prod(lengths[1:] if len(shape) > 2 else lengths[:-1]), 1)
