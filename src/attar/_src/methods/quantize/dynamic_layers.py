"""Layers whose data can be quantized as they are read, and why others cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import onnx
from torch import fx

from attar._src.core.operators import INTEGER_KERNELS
from attar._src.core.scheme import PerChannel
from attar._src.core.tensors import CompressedTensor, Quantized
from attar._src.methods.quantize.integer_layers import scale_count
from attar._src.model.chains.constants import constant_nodes
from attar._src.model.operators import data_of, kind_of, weight_of
from attar._src.model.weights import Weight, find_weights
from attar._src.runtime.builder import node_attributes
from attar._src.work.compressed_model import CompressedGraph

#: Units of a state from which on integers take less time than floating point for one example. Measured with 32 steps
#: on one core (AVX-512 VNNI), integers to floating point: LSTM 32 units 1.08, 64 0.82, 256 0.38; GRU, whose steps are
#: several operators each, 128 units 1.94, 192 1.29, 256 0.89, 512 0.49. Of 32 examples a GRU of 64 units takes 0.77.
_LEAST_HIDDEN = {"LSTM": 64, "GRU": 256}

#: Warning where nothing can be dynamic.
NOTHING_DYNAMIC = (
    "no layer can quantize what it reads at run time: activations='dynamic' is for linear layers, products with a "
    "weight, LSTM of 64 units or more and GRU of 256, with weights on a symmetric grid with one scale for each output "
    "channel; use activations=8, or leave activations out"
)


def dynamic_layers(graph: CompressedGraph, tensors: Mapping[str, CompressedTensor]) -> dict[str, str]:
    """Return each node that multiplies data by a quantized weight -> why it cannot be dynamic, empty if it can.

    A linear layer or a product of matrices can, if its weight is the second factor, on a symmetric grid with one scale
    or one for each output channel. An LSTM or GRU can, if all its weights are on such grids and its states are wide
    enough that integers take less time.
    """
    nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
    read: dict[str, list[Weight]] = defaultdict(list)
    for weight in find_weights(graph.traced.graph).values():
        for reader in weight.readers if weight.role != "embedding" else ():
            read[reader].append(weight)
    read = {name: each for name, each in read.items() if any(isinstance(tensors.get(w.name), Quantized) for w in each)}
    products = {node.name: node for node in graph.traced.model.graph.node}
    deployed = graph.traced.deployed_as() if read else {}
    constant = constant_nodes(graph.traced.graph.graph)
    found = {}
    for name in [name for name in nodes if name in read]:
        node, data = nodes[name], data_of(nodes[name])[0]
        if not isinstance(data, fx.Node) or data in constant:
            found[name] = "its weight is the first factor, integer kernels want it second"
        else:
            refusal = _layers_refusal if kind_of(node) == "recurrent" else _kernel_refusal
            kernel = refusal(node, [products[each] for each in deployed.get(name, ())])
            found[name] = kernel or _weights_refusal(read[name], tensors, several=kind_of(node) == "recurrent")
    return found


def make_dynamic(
    graph: CompressedGraph, tensors: Mapping[str, CompressedTensor], layers: Collection[str], *, recurrent: bool = False
) -> CompressedGraph:
    """Return a graph whose ``layers``, names of nodes, are dynamic if they can be; others stay what they are.

    With ``recurrent`` only LSTM and GRU among them are: the others have static grids, or read floating point. A layer
    that reads a value that stays in floating point by request is not; nor is one that reads a value with a grid, except
    for LSTM and GRU, which have no kernel that reads its codes.
    """
    nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
    able = {nodes[name] for name, why in dynamic_layers(graph, tensors).items() if not why and name in layers}
    others = {node for node in able if kind_of(node) != "recurrent"}
    static = {node for node in others if recurrent or data_of(node)[0].name in graph.activations}
    dynamic = frozenset(node.name for node in able - static if data_of(node)[0].name not in graph.floating)
    kept = graph.dynamic.difference(layers) | dynamic
    return replace(graph, dynamic=kept, rows=graph.rows & kept)


def readers_of(graph: CompressedGraph, weights: Collection[str]) -> set[str]:
    """Return the names of the nodes that multiply by one of these weights."""
    read = find_weights(graph.traced.graph)
    return {reader for name in read.keys() & set(weights) for reader in read[name].readers}


def _kernel_refusal(node: fx.Node, deployed: Sequence[onnx.NodeProto]) -> str:
    """Return why no dynamic kernel runs what a node is in ONNX."""
    if len(deployed) != 1:
        return f"{node.target} is no single product in ONNX"
    kind = deployed[0].op_type
    kernel = INTEGER_KERNELS.get(kind)
    if kernel is None or not kernel.dynamic:
        return f"ONNX Runtime has no {kind} that quantizes what it reads"
    weight = weight_of(node)
    rank = weight.meta["val"].dim() if isinstance(weight, fx.Node) else 0
    return kernel.refusal(kind, node_attributes(deployed[0]), rank)


def _layers_refusal(node: fx.Node, deployed: Sequence[onnx.NodeProto]) -> str:
    """Return why no dynamic form runs the layers of a recurrent node, or takes longer than floating point."""
    kinds = {each.op_type for each in deployed}
    if not kinds or not kinds <= _LEAST_HIDDEN.keys():
        return f"ONNX Runtime has no {', '.join(sorted(kinds)) or node.target} that quantizes what it reads"
    for each in deployed:
        hidden = node_attributes(each)["hidden_size"]
        if hidden < _LEAST_HIDDEN[each.op_type]:
            return f"integers take longer for {each.op_type} of {hidden} units, less than {_LEAST_HIDDEN[each.op_type]}"
    return ""


def _weights_refusal(weights: Sequence[Weight], tensors: Mapping[str, CompressedTensor], *, several: bool) -> str:
    """Return why integer kernels do not read the weight of a layer, or one of ``several``."""
    if len(weights) > 1 and not several:
        return "its weight is put together of several tensors"
    return next((why for weight in weights if (why := _weight_refusal(weight, tensors.get(weight.name)))), "")


def _weight_refusal(weight: Weight, tensor: CompressedTensor | None) -> str:
    if not isinstance(tensor, Quantized):
        return f"{weight.name} is not quantized"
    if not isinstance(weight.channels, PerChannel) or scale_count(tensor, weight.channels.axis) is None:
        return "its weight has zero points, or scales that do not belong to output channels: a storage format"
    return ""
