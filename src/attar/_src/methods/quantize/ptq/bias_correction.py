"""Bias correction: subtract the mean output error of a rounded weight from the layer's bias.

If a weight W is rounded to W + D, the output of its layer moves by D E[x] on average, and

    b' = b - D E[x]

with E[x] the mean of each input channel over real inputs. For convolutions D is summed over the positions of the
kernel, which ignores padding (Nagel et al. 2019, "Data-free quantization through weight equalization and bias
correction", section 4.2; there E[x] is derived from batch-norms, here it is measured).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import fx

from attar._src.core.tensors import CompressedTensor, Dense
from attar._src.model.collect import Request
from attar._src.model.operators import bias_of, is_layer, output_axes, weight_of
from attar._src.model.statistics import ChannelMean
from attar._src.model.weights import layer_input

#: Of fewer inputs of a layer (examples times positions) the mean is mostly noise; of one, the correction would hide the
#: whole error on this input and on no other.
FEWEST = 8


def mean_requests(
    graph: fx.GraphModule, rounded: Collection[str], shared: frozenset[str] = frozenset()
) -> dict[fx.Node, tuple[Request]]:
    """Return the request for the mean of each input channel of every layer whose bias can be corrected.

    The weight must be in ``rounded``. Layers without a bias, or that share weight or bias with another layer or graph
    (``shared``), are left out.
    """
    found = {node: layer_input(graph, node) for node in graph.graph.nodes if _is_correctable(node, rounded, shared)}
    return {node: (Request.of_input(read, ChannelMean),) for node, read in found.items() if read is not None}


def corrected_biases(
    state: Mapping[str, torch.Tensor],
    tensors: Mapping[str, CompressedTensor],
    means: Mapping[fx.Node, ChannelMean],
) -> dict[str, Dense]:
    """Return name -> corrected bias, of layers with rounded weights that saw at least ``FEWEST`` inputs.

    Args:
        state: name -> weight or bias before rounding.
        tensors: name -> rounded weight.
        means: layer of :func:`mean_requests` -> its statistic.
    """
    biases = {}
    for node, seen in means.items():
        weight, bias = str(weight_of(node).target), str(bias_of(node).target)
        if seen.vectors < FEWEST or weight not in tensors:
            continue
        error = (torch.from_numpy(np.asarray(tensors[weight].dense())) - state[weight]).double()
        kernel = error.flatten(2).sum(2) if error.dim() > 2 else error
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
