"""The stage that quantizes weights and activations after training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import fx

from attar._src.core.describe import to_record
from attar._src.core.errors import SpecError, UnknownName
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.spec import Spec
from attar._src.core.tensors import Codebook, CompressedTensor, Quantized
from attar._src.methods.quantize.granularity import GranularityChoice
from attar._src.methods.quantize.integer_bias import with_integer_biases
from attar._src.methods.quantize.ptq.bias_correction import corrected_biases
from attar._src.methods.quantize.ptq.calibrate import calibrate
from attar._src.methods.quantize.ptq.registry import OBSERVERS, SOLVERS
from attar._src.methods.quantize.unquantized import unquantized_values
from attar._src.model.sites import Site, find_sites
from attar._src.model.weights import Weight, find_weights
from attar._src.work.compressed_model import Calibration, CompressedGraph, CompressedModel, inputs_by_graph

Bits = Annotated[int, Field(ge=2, le=8)]


class PostTrainingQuantize(Spec):
    """Round weights, and activations where asked, to affine grids.

    What stages that trained hold goes on from there: pruned weights are rounded as they are pruned, and grids that this
    stage does not replace stay.

    Attributes:
        bits: bits of a weight.
        activations: bits of an activation, or None to leave activations in floating point.
        symmetric: weights have no zero point (what integer kernels need).
        granularity: which weights share a scale: ``channel`` (or None: one for each index of the weight's own output
            axis), ``tensor``, ``group:SIZE``, ``bucket:SIZE``, or a granularity of ``core.scheme``.
        scales: name of the solver that finds the weights' scales.
        observer: name of the observer that finds the activations' ranges.
        keep: globs of layers or tensors left as they are: in floating point, unless a stage that trained holds them
            to a grid.
        overrides: glob of layers or tensors -> bits; of several that match, the last holds.
        correct_bias: take the mean error of rounded weights out of the biases behind them.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"data"})

    stage: Literal["quantize"] = "quantize"
    bits: Bits = 4
    activations: Bits | None = None
    symmetric: bool = True
    granularity: GranularityChoice = None
    scales: str = "absmax"
    observer: str = "percentile"
    keep: tuple[str, ...] = ()
    overrides: dict[str, Bits] = {}
    correct_bias: bool = True

    def run(self, piece: CompressedModel, calibration: Calibration) -> CompressedModel:
        """Return the workpiece with quantized weights and activations.

        Weights that several graphs share are rounded once; sites, and biases corrected, are those of each graph.

        Raises:
            DataError: there are several graphs, and one has no inputs of its own.
            UnknownName: a glob matches no layer; the nearest names are listed.
            SpecError: a scheme does not fit a weight.
        """
        solver, observer = SOLVERS[self.scales], OBSERVERS[self.observer]
        # As earlier stages hold them, not as training left them underneath.
        inputs = inputs_by_graph(piece, calibration)
        state = piece.state()
        state |= {name: torch.from_numpy(np.array(t.dense())) for name, t in piece.tensors.items() if name in state}
        programs = {name: _unrounded(piece, name) for name in piece.graphs}
        weights = piece.weights()
        bits = self._bits(weights, [name for name, value in state.items() if value.is_floating_point()])
        solved: dict[str, CompressedTensor] = {}
        for name, width in bits.items():
            try:
                solved[name] = solver.solve(state[name].numpy(), self._scheme(width, weights.get(name)))
            except SpecError as error:
                raise SpecError(f"stage quantize at {name!r}: {error}") from error
        if self.correct_bias:
            # The means of a layer's inputs are those of one graph: layers that several share are left as they are.
            own = {name: tensor for name, tensor in solved.items() if name not in piece.shared()}
            for name, program in programs.items():
                solved |= corrected_biases(program, state, own, inputs[name])
        tensors = {**piece.tensors, **solved}
        graphs = dict(piece.graphs)
        if self.activations is not None:
            for name, graph in piece.graphs.items():
                sites = _sites(graph, tensors)
                activations = calibrate(programs[name], sites, inputs[name], observer, self.activations)
                rounded = frozenset(source for site in sites for source in site.sources)
                graphs[name] = replace(graph, activations=activations, rounded=rounded)
        record: dict[str, Any] = to_record(self) | {
            "bits": self.bits,
            "calibration_examples": sum(each.examples for each in inputs.values()),
        }
        return with_integer_biases(piece.done(record, tensors=tensors, graphs=graphs))

    def left(self, piece: CompressedModel) -> dict[str, str]:
        """Return what stays in floating point -> the reason: tensors of two and more dimensions, and values.

        Args:
            piece: what this stage made.
        """
        weights = piece.weights()
        left = {
            name: "kept by request"
            if name in weights
            else "not recognised as a weight; name it with overrides to quantize it all the same"
            for name, value in piece.state().items()
            if value.is_floating_point() and value.dim() >= 2 and not _on_grid(piece.tensors, name)
        }
        if self.activations is not None:
            for graph in piece.graphs.values():
                placed = {name for site in _sites(graph, piece.tensors) for name in site.sources}
                left |= unquantized_values(graph.traced.graph, placed, skip=_floating(graph, piece.tensors))
        return left

    def _bits(self, weights: Mapping[str, Weight], names: Iterable[str]) -> dict[str, int]:
        """Return the bits of every tensor to quantize: each weight, unless kept or overridden."""
        known = list(names)
        bits = {name: self.bits for name in known if name in weights}
        for glob, width in self.overrides.items():
            matched = _match(glob, known)
            # A layer means its weights; a bias or a table is quantized only where nothing else could be meant.
            matched = [name for name in matched if name in weights] or matched
            bits.update(dict.fromkeys(matched, width))
        for glob in self.keep:
            for name in _match(glob, known):
                bits.pop(name, None)
        return {name: bits[name] for name in known if name in bits}

    def _scheme(self, bits: int, weight: Weight | None) -> Scheme:
        granularity = self.granularity or PerChannel(axis=weight.axis if weight else 0)
        return Scheme(bits=bits, symmetric=self.symmetric, granularity=granularity)


def _unrounded(piece: CompressedModel, name: str) -> fx.GraphModule:
    """Return a graph with its weights as they are stored, its activations in floating point."""
    graph = piece.graphs[name]
    if not piece.tensors:
        return graph.traced.graph
    return replace(piece, graphs={name: CompressedGraph(graph.traced)}).simulate()


def _on_grid(tensors: Mapping[str, CompressedTensor], name: str) -> bool:
    """True for a tensor that is stored as codes."""
    return isinstance(tensors.get(name), Quantized | Codebook)


def _floating(graph: CompressedGraph, tensors: Mapping[str, CompressedTensor]) -> Callable[[fx.Node], bool]:
    """Return what is true of the layers whose weights are on no grid."""
    weights = find_weights(graph.traced.graph)
    readers = {reader for name, weight in weights.items() if not _on_grid(tensors, name) for reader in weight.readers}
    return lambda node: node.name in readers


def _sites(graph: CompressedGraph, tensors: Mapping[str, CompressedTensor]) -> tuple[Site, ...]:
    """Return the sites of the layers whose weights are on a grid."""
    return find_sites(graph.traced.graph, graph.traced.values, skip=_floating(graph, tensors))


def _match(glob: str, names: list[str]) -> list[str]:
    """Return the names that ``glob`` matches, by themselves or by their layer."""
    matched = [name for name in names if fnmatchcase(name, glob) or fnmatchcase(name.rpartition(".")[0], glob)]
    if not matched:
        raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in names} | set(names))
    return matched
