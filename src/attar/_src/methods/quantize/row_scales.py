"""Dynamic layers whose data have rows of very different size, and what scaling the rows first is worth.

One range for all that a layer reads is as wide as its largest element. Where a few rows (tokens) are many times larger
than the others, as behind the normalizations and in the feed-forward parts of transformers, the others share few codes.
A layer that scales rows divides each by its largest magnitude m before, and multiplies its products by m afterwards:

    y = m * (round(x / m) W) + b

This is token-wise quantization (Yao et al. 2022, "ZeroQuant", arXiv 2206.01861, section 4.1) in operators for which
ONNX Runtime has one fast kernel. The kernel stays; the two scalings take about a sixth of its time, so that it is done
only where it is worth a bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import log10
from typing import Any

import torch
from torch import Tensor, fx

from attar._src.model.operators import data_of, kind_of
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedGraph, CompressedModel
from attar._src.work.dynamic_rounding import DynamicRound

#: Decibels of signal to noise that scaling rows has to gain: what one bit more would.
LEAST_GAIN = 6.0
#: Examples on which it is measured.
_MEASURED = 128


def with_row_scales(model: CompressedModel, inputs: Mapping[str, CalibrationInputs]) -> CompressedModel:
    """Return a model whose dynamic layers scale the rows of their data where that gains ``LEAST_GAIN``.

    Measured is the noise in what layers make of a value of the floating network, rounded with and without scaled rows,
    with their stored weights; layers that read the same value do it alike, as they share its codes. The note ``rows``
    has the layers and their gains.
    """
    graphs, gained = dict(model.graphs), dict[str, float]()
    for name, graph in model.graphs.items():
        nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
        layers = [each for each in nodes if each in graph.dynamic and kind_of(nodes[each]) != "recurrent"]
        if not layers:
            continue
        gains = _gains(model, name, layers, inputs[name])
        rows = frozenset(each for each in layers if gains.get(each, 0.0) >= LEAST_GAIN)
        graphs[name] = replace(graph, rows=rows)
        gained |= {each: gains[each] for each in layers if each in rows}
    if not gained:
        return replace(model, graphs=graphs)
    told = ", ".join(f"{name} {gain:.1f} dB" for name, gain in gained.items())
    return replace(model, graphs=graphs, notes={**model.notes, "rows": f"layers that scale the rows they read: {told}"})


def _gains(model: CompressedModel, graph: str, layers: Collection[str], inputs: CalibrationInputs) -> dict[str, float]:
    """Return layer -> decibels by which scaled rows lower the noise of all layers that read the same value."""
    of = model.graphs[graph]
    floating = replace(model, graphs={graph: CompressedGraph(of.traced)}).simulate()
    compared = _Compared(floating, layers)
    with torch.no_grad():
        for batch in inputs.first(_MEASURED, cut=of.traced.any_batch).batches:
            compared.run(*batch)
    gains = {value: 10 * log10(plain / rows) for value, (plain, rows) in compared.noise.items() if plain and rows}
    return {layer: gains[value] for layer, value in compared.reads.items() if value in gains}


class _Compared(fx.Interpreter):
    """Runs a graph in floating point, and layers beside it on rounded data, without and with scaled rows.

    Attributes:
        reads: layer -> the name of its data.
        noise: value -> the sums of squared errors of the layers that read it, without and with scaled rows.
    """

    def __init__(self, graph: fx.GraphModule, layers: Collection[str]) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.layers = frozenset(layers)
        self.reads: dict[str, str] = {}
        self.noise: dict[str, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.layers and isinstance(data := data_of(n)[0], fx.Node):
            self.reads[n.name] = data.name
            before = self.noise.get(data.name, (0.0, 0.0))
            found = [self._noise(n, data, result, DynamicRound(rows=rows)) for rows in (False, True)]
            self.noise[data.name] = (before[0] + found[0], before[1] + found[1])
        return result

    def _noise(self, n: fx.Node, data: fx.Node, right: Tensor, rounding: DynamicRound) -> float:
        kept = self.env[data]
        self.env[data] = rounding(kept)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        self.env[data] = kept
        made: Tensor = n.target(*args, **kwargs)  # type: ignore[operator]
        return float((made - right).double().square().sum())
