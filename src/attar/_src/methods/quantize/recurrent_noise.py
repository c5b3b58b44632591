"""LSTM and GRU that lose too much by quantizing what they read at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, log10
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from attar._src.model.operators import kind_of
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedGraph, CompressedModel
from attar._src.work.dynamic_recurrent import dynamic_recurrent

#: Decibels that what such a layer gives must keep over the error of rounding what it reads, by default. Trained layers
#: have 25 to 45; below 15 the error is a sixth of the outputs, and a step reads that of all steps before it.
LEAST_DB = 15.0


def without_noisy_recurrent(
    model: CompressedModel, inputs: Mapping[str, CalibrationInputs]
) -> tuple[CompressedModel, list[str]]:
    """Return a model whose LSTM and GRU read floating point where integers lose too much, and warnings about them.

    A layer is judged alone: with its rounded weights, on what it reads when all before it is in floating point. The
    signal to noise of what it gives is

        10 log10( sum (y - mean y)^2 / sum (y' - y)^2 ),    y' with input sequence and states on 8-bit grids,

    over all outputs and calibration inputs. A sequence whose features differ much in size, of which one spans the grid,
    is what ruins it.
    """
    graphs, warnings = dict(model.graphs), []
    for name, graph in model.graphs.items():
        nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
        recurrent = [each for each in sorted(graph.dynamic) if kind_of(nodes[each]) == "recurrent"]
        if not recurrent:
            continue
        kept = _signal_to_noise(model, name, recurrent, inputs[name])
        noisy = {layer: ratio for layer, ratio in kept.items() if ratio < LEAST_DB}
        graphs[name] = replace(graph, dynamic=graph.dynamic - noisy.keys())
        warnings += [_warning(layer, ratio) for layer, ratio in noisy.items()]
    return replace(model, graphs=graphs), warnings


def _warning(layer: str, ratio: float) -> str:
    return (
        f"{layer} reads floating point: quantized as they are read, its sequences and states would leave "
        f"{ratio:.1f} dB of what it gives (at least {LEAST_DB:.0f} are asked for); give it inputs of similar size, "
        "feature by feature, or insist with activations='dynamic'"
    )


def _signal_to_noise(
    model: CompressedModel, graph: str, layers: Sequence[str], inputs: CalibrationInputs
) -> dict[str, float]:
    floating = replace(model, graphs={graph: CompressedGraph(model.graphs[graph].traced)}).simulate()
    compared = _Compared(floating, layers)
    with torch.no_grad():
        for batch in inputs.batches:
            compared.run(*batch)
    return {layer: seen.decibels() for layer, seen in compared.seen.items()}


class _Energy:
    """Sums of squares of outputs, about their mean, and of their errors."""

    def __init__(self) -> None:
        self.count, self.total, self.squares, self.noise = 0, 0.0, 0.0, 0.0

    def add(self, right: Tensor, found: Tensor) -> None:
        right, found = right.double(), found.double()
        self.count += right.numel()
        self.total += float(right.sum())
        self.squares += float(right.square().sum())
        self.noise += float((found - right).square().sum())

    def decibels(self) -> float:
        signal = self.squares - self.total**2 / max(self.count, 1)
        # Without a signal, or with NaN, there is nothing to lose.
        return 10 * log10(signal / self.noise) if signal > 0 and self.noise > 0 else inf


class _Compared(fx.Interpreter):
    """Runs a graph in floating point, and its recurrent layers dynamically beside it."""

    def __init__(self, graph: fx.GraphModule, layers: Sequence[str]) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.seen = {layer: _Energy() for layer in layers}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.seen:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            pairs = zip(tree_leaves(result), tree_leaves(dynamic_recurrent(n)(*args, **kwargs)), strict=True)
            for right, found in pairs:
                self.seen[n.name].add(right, found)
        return result
