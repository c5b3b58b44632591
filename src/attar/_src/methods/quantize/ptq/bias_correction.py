"""Bias correction: take the mean error that rounded weights make out of the bias behind them.

A layer with weight W rounded to W + D shifts its output by D E[x] on average; the bias takes that back,

    b' = b - D E[x]

with E[x] the mean of each input channel over real inputs (for convolutions D is summed over the kernel's positions,
which neglects the border). Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through weight equalization
and bias correction", ICCV 2019, section 4.2, here with measured means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from attar._src.core.progress import track
from attar._src.core.tensors import CompressedTensor, Dense
from attar._src.model.sites import observe
from attar._src.work.compressed_model import CalibrationInputs

aten = torch.ops.aten

#: Layers with a bias behind their weight -> position of ``groups`` in their arguments.
_LAYERS: dict[Any, int | None] = {
    aten.conv1d.default: 6,
    aten.conv2d.default: 6,
    aten.conv3d.default: 6,
    aten.linear.default: None,
}


def corrected_biases(
    graph: fx.GraphModule,
    state: Mapping[str, torch.Tensor],
    tensors: Mapping[str, CompressedTensor],
    calibration: CalibrationInputs,
) -> dict[str, Dense]:
    """Return the corrected bias of every convolution and linear layer whose weight was rounded.

    Layers without a bias, and those that share a weight or a bias with another, are left as they are.

    Args:
        graph: the traced graph with its floating weights.
        state: those weights and biases by name.
        tensors: compressed tensors by name.
        calibration: real inputs.
    """
    layers = [node for node in graph.graph.nodes if _is_correctable(node, tensors)]
    means = _input_means(graph, layers, calibration)
    biases = {}
    for node in layers:
        weight, bias = str(node.args[1].target), str(node.args[2].target)
        error = torch.from_numpy(np.asarray(tensors[weight].dense())) - state[weight]
        kernel = error.double().flatten(2).sum(2) if error.dim() > 2 else error.double()
        position = _LAYERS[node.target]
        groups = int(node.args[position]) if position is not None and len(node.args) > position else 1
        mean = means[_data(node)].reshape(groups, -1)
        shift = torch.einsum("goi,gi->go", kernel.reshape(groups, -1, kernel.shape[1]), mean).reshape(-1)
        biases[bias] = Dense((state[bias].double() - shift).float().numpy())
    return biases


def _is_correctable(node: fx.Node, tensors: Mapping[str, CompressedTensor]) -> bool:
    if node.op != "call_function" or node.target not in _LAYERS or len(node.args) < 3:
        return False
    _, weight, bias = node.args[:3]
    alone = all(isinstance(n, fx.Node) and n.op == "get_attr" and len(n.users) == 1 for n in (weight, bias))
    return alone and str(weight.target) in tensors and str(bias.target) not in tensors  # type: ignore[union-attr]


def _data(layer: fx.Node) -> tuple[str, int]:
    """Return the name of the layer's input, and the axis of its channels as the layer reads it."""
    data = layer.args[0]
    assert isinstance(data, fx.Node)
    return data.name, -1 if layer.target is aten.linear.default else 1


def _input_means(
    graph: fx.GraphModule, layers: list[fx.Node], calibration: CalibrationInputs
) -> dict[tuple[str, int], torch.Tensor]:
    """Return the mean of each channel of the layers' inputs, float64, by input and axis."""
    axes: dict[str, set[int]] = {}
    for layer in layers:
        name, axis = _data(layer)
        axes.setdefault(name, set()).add(axis)
    totals: dict[tuple[str, int], torch.Tensor] = {}
    counts: dict[tuple[str, int], int] = {}

    def see(name: str, value: Any) -> None:
        for axis in axes[name]:
            moved = value.double().movedim(axis, -1).flatten(0, -2)
            totals[name, axis] = totals.get((name, axis), torch.zeros(())) + moved.sum(0)
            counts[name, axis] = counts.get((name, axis), 0) + len(moved)

    with torch.no_grad():
        for batch in track(calibration.batches, "correcting biases"):
            observe(graph, batch, axes, see)
    return {key: total / counts[key] for key, total in totals.items()}
