"""Layers whose data can be quantized as they are read, and why others cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from torch import fx

from attar._src.core.operators import INTEGER_KERNELS
from attar._src.core.scheme import PerChannel
from attar._src.core.tensors import CompressedTensor, Quantized
from attar._src.methods.quantize.integer_layers import INT32, scale_count
from attar._src.model.chains.constants import constant_nodes
from attar._src.model.operators import data_of, weight_of
from attar._src.model.weights import Weight, find_weights
from attar._src.runtime.builder import node_attributes
from attar._src.work.compressed_model import CompressedGraph

#: Largest distance of a code from its zero point, whatever the data.
_REACH = 255


def dynamic_layers(graph: CompressedGraph, tensors: Mapping[str, CompressedTensor]) -> dict[str, str]:
    """Return each node that multiplies data by a quantized weight -> why it cannot be dynamic, empty if it can.

    A linear layer or a product of matrices can, if its weight is the second factor, on a symmetric grid with one scale
    or one for each output channel, and no sum of products exceeds 32 bits.
    """
    nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
    read: dict[str, list[Weight]] = defaultdict(list)
    for weight in find_weights(graph.traced.graph).values():
        quantized = weight.role != "embedding" and isinstance(tensors.get(weight.name), Quantized)
        for reader in weight.readers if quantized else ():
            read[reader].append(weight)
    products = {node.name: node for node in graph.traced.model.graph.node}
    deployed = graph.traced.deployed_as() if read else {}
    constant = constant_nodes(graph.traced.graph.graph)
    found = {}
    for name in [name for name in nodes if name in read]:
        node, data = nodes[name], data_of(nodes[name])[0]
        if not isinstance(data, fx.Node) or data in constant:
            found[name] = "its weight is the first factor, integer kernels want it second"
        else:
            kernel = _kernel_refusal(node, [products[each] for each in deployed.get(name, ())])
            found[name] = kernel or _weight_refusal(read[name], tensors)
    return found


def make_dynamic(
    graph: CompressedGraph, tensors: Mapping[str, CompressedTensor], layers: Collection[str]
) -> CompressedGraph:
    """Return a graph whose ``layers``, names of nodes, are dynamic if they can be; others stay what they are.

    A layer that reads a value with a grid, or one that stays in floating point by request, is not.
    """
    nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
    kept = graph.floating | graph.activations.keys()
    able = {name for name, why in dynamic_layers(graph, tensors).items() if not why and name in layers}
    dynamic = frozenset(name for name in able if data_of(nodes[name])[0].name not in kept)
    return replace(graph, dynamic=graph.dynamic.difference(layers) | dynamic)


def readers_of(graph: CompressedGraph, weights: Collection[str]) -> set[str]:
    """Return the names of the nodes that multiply by one of these weights."""
    read = find_weights(graph.traced.graph)
    return {reader for name in read.keys() & set(weights) for reader in read[name].readers}


def _kernel_refusal(node: fx.Node, deployed: Sequence[onnx.NodeProto]) -> str:
    """Return why no dynamic kernel runs what a node is in ONNX."""
    if len(deployed) != 1:
        return f"{node.target} is no single product in ONNX"
    kind, kernel = deployed[0].op_type, INTEGER_KERNELS[deployed[0].op_type]
    if not kernel.dynamic:
        return f"ONNX Runtime has no {kind} that quantizes what it reads"
    weight = weight_of(node)
    rank = weight.meta["val"].dim() if isinstance(weight, fx.Node) else 0
    return kernel.refusal(kind, node_attributes(deployed[0]), rank)


def _weight_refusal(weights: Sequence[Weight], tensors: Mapping[str, CompressedTensor]) -> str:
    """Return why integer kernels do not read the weight of a layer."""
    if len(weights) > 1:
        return "its weight is put together of several tensors"
    weight, tensor = weights[0], tensors[weights[0].name]
    assert isinstance(tensor, Quantized)
    if not isinstance(weight.channels, PerChannel) or scale_count(tensor, weight.channels.axis) is None:
        return "its weight has zero points, or scales that do not belong to output channels: a storage format"
    others = tuple(each for each in range(tensor.codes.ndim) if each != weight.channels.axis)
    sums = np.abs(tensor.codes.astype(np.int64)).sum(others)
    return "" if (sums * _REACH <= INT32).all() else "its sums would not fit 32 bits"
