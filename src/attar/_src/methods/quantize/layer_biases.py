"""Which bias is added to the products of which weight."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from attar._src.model.operators import bias_of, operator_of
from attar._src.model.recurrent.inputs import recurrent_biases
from attar._src.model.weights import find_weights


def layer_biases(graph: fx.GraphModule) -> Iterator[tuple[str, str]]:
    """Yield the names of the bias and of the weight of each layer that has both, recurrent layers included."""
    nodes = {node.name: node for node in graph.graph.nodes}
    for node in graph.graph.nodes:
        if operator_of(node).kind == "recurrent":
            yield from recurrent_biases(node)
    for name, weight in find_weights(graph).items():
        for reader in weight.readers if weight.role == "product" else ():
            bias = bias_of(nodes[reader])
            if isinstance(bias, fx.Node) and bias.op == "get_attr":
                yield str(bias.target), name
