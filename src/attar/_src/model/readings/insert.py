"""Values that products read apart from additions, as they then have a grid for each.

In ``relu(conv(x) + x)`` the convolution and the addition read x. Few bits are right for a product, which multiplies
each of them, and wrong for what is carried from block to block, where every rounding stays. So x gets a *reading*, the
value ``x_reading``, which is equal to x and is what products read:

    x (8 bits) ------------------------> addition
        +--> x_reading (4 bits) -> convolution

In PyTorch it is ``attar.reading``, in ONNX ``Identity``. At run time it is a second rounding, of the codes of x. This
is what "4-bit activations" mean where networks are trained for them (Esser et al. 2020, "Learned step size
quantization", section 2.3: inputs of convolutions and linear layers).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import onnx
from torch import fx

from attar._src.model.operators import data_of, kind_of, operator_of
from attar._src.model.programs import copy_graph
from attar._src.model.readings.reading_op import READING
from attar._src.model.sites import Site
from attar._src.model.traced import TracedModel

_SUFFIX = "_reading"


def read_and_added(graph: fx.GraphModule, sites: Iterable[Site]) -> dict[str, Site]:
    """Return the values that products read, with their sites, of those sites that sums or averages read as well."""
    nodes = {node.name: node for node in graph.graph.nodes}
    found: dict[str, Site] = {}
    for site in sites:
        values = [nodes[name] for name in site.values if name in nodes]
        if any(kind_of(user) == "pass" and user.target is not READING for node in values for user in node.users):
            found |= {node.name: site for node in values if _products_of(node)}
    return found


def reading_of(value: str) -> str:
    """Return the name of a value's reading."""
    return value + _SUFFIX


def values_read(names: Iterable[str]) -> list[str]:
    """Return the values whose readings are among ``names``."""
    return [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]


def with_readings(traced: TracedModel, values: Collection[str]) -> TracedModel:
    """Return the module with a reading of each of some values.

    A value stays as it is whose products are others in ONNX, or whose reading would have the name of another value.
    """
    graph, model = copy_graph(traced.graph), onnx.ModelProto()
    model.CopyFrom(traced.model)
    nodes = {node.name: node for node in graph.graph.nodes}
    for value in values:
        name, node = reading_of(value), nodes.get(value)
        products = _products_of(node) if node is not None else []
        readers = _onnx_readers(model, value, products)
        if node is None or not products or len(readers) != len(products) or name in nodes:
            continue
        with graph.graph.inserting_before(products[0]):
            made = graph.graph.create_node("call_function", READING, (node,), name=name)
        made.meta = {"val": node.meta["val"]}
        for product in products:
            product.replace_input_with(node, made)
        for place in readers:
            inputs = [name if each == value else each for each in model.graph.node[place].input]
            del model.graph.node[place].input[:]
            model.graph.node[place].input.extend(inputs)
        model.graph.node.insert(readers[0], onnx.helper.make_node("Identity", [value], [name], name=f"node_{name}"))
    graph.recompile()
    return replace(traced, graph=graph, model=model)


def _products_of(node: fx.Node) -> list[fx.Node]:
    """Return the products that read a value as data, in graph order."""
    users = set(node.users)
    found = [user for user in node.graph.nodes if user in users and kind_of(user) in ("layer", "product")]
    return [user for user in found if node in data_of(user)]


def _onnx_readers(model: onnx.ModelProto, value: str, products: Sequence[fx.Node]) -> list[int]:
    """Return the places of the nodes that are these products."""
    types = {name for product in products for name in operator_of(product).onnx.split()}
    return [place for place, node in enumerate(model.graph.node) if node.op_type in types and value in node.input]
