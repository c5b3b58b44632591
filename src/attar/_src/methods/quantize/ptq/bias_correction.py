"""Bias correction: take the mean error that rounded weights make out of the bias behind them.

A layer with weight W rounded to W + D shifts its output by D E[x] on average; the bias takes that back,

    b' = b - D E[x]

with E[x] the mean of each input channel over real inputs (for convolutions D is summed over the kernel's positions,
which neglects the border). Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through weight equalization
and bias correction", ICCV 2019, section 4.2, here with measured means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import fx

from attar._src.core.tensors import CompressedTensor, Dense
from attar._src.model.collect import Request
from attar._src.model.layer_input import layer_input
from attar._src.model.operators import bias_of, is_layer, output_axes, weight_of
from attar._src.model.statistics import ChannelMean


def mean_requests(
    graph: fx.GraphModule, rounded: Collection[str], shared: frozenset[str] = frozenset()
) -> dict[fx.Node, tuple[Request]]:
    """Return the layers whose biases can be corrected, with the request for the mean of their input's channels.

    Layers without a bias, and those that share a weight or a bias with another, are left as they are.

    Args:
        graph: the traced graph with its floating weights.
        rounded: names of the tensors that are rounded.
        shared: names of the tensors that other graphs read too.
    """
    found = {node: layer_input(graph, node) for node in graph.graph.nodes if _is_correctable(node, rounded, shared)}
    return {node: (Request.of_input(read, ChannelMean),) for node, read in found.items() if read is not None}


def corrected_biases(
    state: Mapping[str, torch.Tensor],
    tensors: Mapping[str, CompressedTensor],
    means: Mapping[fx.Node, ChannelMean],
) -> dict[str, Dense]:
    """Return the corrected bias of every layer whose weight was rounded.

    Args:
        state: the graph's floating weights and biases by name.
        tensors: compressed tensors by name.
        means: layer of ``mean_requests`` -> the mean of its input's channels.
    """
    biases = {}
    for node, seen in means.items():
        weight, bias = str(weight_of(node).target), str(bias_of(node).target)
        error = torch.from_numpy(np.asarray(tensors[weight].dense())) - state[weight]
        kernel = error.double().flatten(2).sum(2) if error.dim() > 2 else error.double()
        # A row of the weight has the channels of its own group.
        mean = torch.from_numpy(seen.mean).reshape(-1, kernel.shape[1])
        shift = torch.einsum("goi,gi->go", kernel.reshape(len(mean), -1, kernel.shape[1]), mean).reshape(-1)
        biases[bias] = Dense((state[bias].double() - shift).float().numpy())
    return biases


def _is_correctable(node: fx.Node, rounded: Collection[str], shared: frozenset[str]) -> bool:
    if not is_layer(node) or output_axes(node, 2)[0] != 0:
        return False
    weight, bias = weight_of(node), bias_of(node)
    alone = all(isinstance(n, fx.Node) and n.op == "get_attr" and len(n.users) == 1 for n in (weight, bias))
    if not alone or not shared.isdisjoint((weight.target, bias.target)):
        return False
    return str(weight.target) in rounded and str(bias.target) not in rounded
