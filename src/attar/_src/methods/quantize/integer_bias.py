"""Biases of integer layers, rounded to the grid on which integer kernels add them.

An integer kernel sums products of codes in steps of S_x S_w and adds an int32 bias in the same steps: at S_x = 0.1 and
S_w = 0.02 a bias of 0.5013 is 251 steps, 0.502. Rounded here, the PyTorch module and the decoded file add the same
number. Otherwise each layer moves a few values per thousand to the next code, and differences grow with depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import fx

from attar._src.artifact.manifest import Activation
from attar._src.core.tensors import CompressedTensor, Dense, Quantized
from attar._src.model.operators import bias_of, data_of, kind_of, weight_of
from attar._src.work.compressed_model import CompressedModel

_INT32 = 2.0**31 - 1


def with_integer_biases(model: CompressedModel) -> CompressedModel:
    """Return the model with the biases of its integer layers rounded to steps of ``S_x S_w[channel]``."""
    if not any(graph.activations for graph in model.graphs.values()):
        return model
    stored, shared = model.stored(), model.shared()
    biases: dict[str, Dense] = {}
    for graph in model.graphs.values():
        found = _round_biases(graph.traced.graph, stored, graph.activations)
        # The steps of a bias follow from the grid of its input, which each graph has of its own.
        biases |= {name: bias for name, bias in found.items() if name not in shared}
    return replace(model, tensors={**model.tensors, **biases})


def _round_biases(
    graph: fx.GraphModule, tensors: Mapping[str, CompressedTensor], activations: Mapping[str, Activation]
) -> dict[str, Dense]:
    """Return the rounded bias of every layer with quantized input and symmetric quantized weight.

    Biases that overflow int32 or are shared by several layers are left out. A compressed bias is rounded from its
    decoded values.
    """
    rounded = {}
    for node in graph.graph.nodes:
        if kind_of(node) != "layer":
            continue
        data, weight, bias = data_of(node)[0], weight_of(node), bias_of(node)
        if not all(isinstance(argument, fx.Node) for argument in (data, weight, bias)) or data.name not in activations:
            continue
        codes, stored = tensors.get(str(weight.target)), tensors.get(str(bias.target))
        if not isinstance(codes, Quantized) or codes.zero_point is not None or stored is None:
            continue
        values = stored.dense()
        if len(bias.users) > 1 or codes.scale.size not in (1, values.size):
            continue
        step = np.float32(activations[data.name].scale) * codes.scale
        steps = np.rint(values.astype(np.float64) / step)
        if np.isfinite(steps).all() and np.abs(steps).max(initial=0) < _INT32:
            rounded[str(bias.target)] = Dense((steps * step).astype(np.float32))
    return rounded
