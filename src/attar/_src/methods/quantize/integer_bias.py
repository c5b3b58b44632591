"""Biases of integer layers on the grid that integer kernels add them on.

An integer kernel sums x and w codes in steps of S_x S_w and adds a bias in the same steps, as int32. Rounding it here
already makes the module in PyTorch and the decoded file add the same number: without this, every layer tips a few
values per thousand to the neighbouring code, and the difference grows from layer to layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import fx

from attar._src.artifact.manifest import Activation
from attar._src.core.tensors import CompressedTensor, Dense, Quantized
from attar._src.model.sites import PRODUCTS
from attar._src.work.compressed_model import CompressedModel

_INT32 = 2.0**31 - 1


def with_integer_biases(piece: CompressedModel) -> CompressedModel:
    """Return the workpiece with the biases of its integer layers on the grid that their kernels add on."""
    if not any(graph.activations for graph in piece.graphs.values()):
        return piece
    stored, shared = piece.stored(), piece.shared()
    biases: dict[str, Dense] = {}
    for graph in piece.graphs.values():
        found = _on_grid(graph.traced.graph, stored, graph.activations)
        # The steps of a bias follow from the grid of its input, which each graph has of its own.
        biases |= {name: bias for name, bias in found.items() if name not in shared}
    return replace(piece, tensors={**piece.tensors, **biases})


def _on_grid(
    graph: fx.GraphModule, tensors: Mapping[str, CompressedTensor], activations: Mapping[str, Activation]
) -> dict[str, Dense]:
    """Return the bias of every layer whose input and weight are quantized, rounded to steps of ``S_x S_w[channel]``.

    A bias that is compressed already is rounded as it is stored. Biases that would not fit 32 bits, or that several
    layers add, are left out.

    Args:
        graph: the traced graph.
        tensors: every tensor as it will be stored, by name.
        activations: the quantized values by name.
    """
    rounded = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in PRODUCTS or len(node.args) < 3:
            continue
        data, weight, bias = node.args[:3]
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
