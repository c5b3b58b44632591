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
from attar._src.work.compressed_model import CalibrationInputs, CompressedModel

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

    def run(self, piece: CompressedModel, calibration: CalibrationInputs) -> CompressedModel:
        """Return the workpiece with quantized weights and activations.

        Raises:
            UnknownName: a glob matches no layer; the nearest names are listed.
            SpecError: a scheme does not fit a weight.
        """
        solver, observer = SOLVERS[self.scales], OBSERVERS[self.observer]
        # As earlier stages hold them, not as training left them underneath.
        state = piece.traced.state()
        state |= {name: torch.from_numpy(np.array(t.dense())) for name, t in piece.tensors.items() if name in state}
        graph = replace(piece, activations={}, rounded=frozenset()).simulate() if piece.tensors else piece.traced.graph
        weights = find_weights(piece.traced.graph)
        bits = self._bits(weights, [name for name, value in state.items() if value.is_floating_point()])
        solved: dict[str, CompressedTensor] = {}
        for name, width in bits.items():
            try:
                solved[name] = solver.solve(state[name].numpy(), self._scheme(width, weights.get(name)))
            except SpecError as error:
                raise SpecError(f"stage quantize at {name!r}: {error}") from error
        if self.correct_bias:
            solved |= corrected_biases(graph, state, solved, calibration)
        tensors = {**piece.tensors, **solved}
        activations, rounded = piece.activations, piece.rounded
        if self.activations is not None:
            sites = _sites(replace(piece, tensors=tensors))
            activations = calibrate(graph, sites, calibration, observer, self.activations)
            rounded = frozenset(name for site in sites for name in site.sources)
        record: dict[str, Any] = to_record(self) | {
            "bits": self.bits,
            "calibration_examples": calibration.examples,
        }
        return with_integer_biases(piece.done(record, tensors=tensors, activations=activations, rounded=rounded))

    def left(self, piece: CompressedModel) -> dict[str, str]:
        """Return what stays in floating point -> the reason: tensors of two and more dimensions, and values.

        Args:
            piece: what this stage made.
        """
        weights = find_weights(piece.traced.graph)
        left = {
            name: "kept by request"
            if name in weights
            else "not recognised as a weight; name it with overrides to quantize it all the same"
            for name, value in piece.traced.state().items()
            if value.is_floating_point() and value.dim() >= 2 and not _on_grid(piece, name)
        }
        if self.activations is not None:
            placed = {name for site in _sites(piece) for name in site.sources}
            left |= unquantized_values(piece.traced.graph, placed, skip=_floating(piece))
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


def _on_grid(piece: CompressedModel, name: str) -> bool:
    """True for a tensor that is stored as codes."""
    return isinstance(piece.tensors.get(name), Quantized | Codebook)


def _floating(piece: CompressedModel) -> Callable[[fx.Node], bool]:
    """Return what is true of the layers whose weights are on no grid."""
    weights = find_weights(piece.traced.graph)
    readers = {reader for name, weight in weights.items() if not _on_grid(piece, name) for reader in weight.readers}
    return lambda node: node.name in readers


def _sites(piece: CompressedModel) -> tuple[Site, ...]:
    """Return the sites of the layers whose weights are on a grid."""
    return find_sites(piece.traced.graph, piece.traced.values, skip=_floating(piece))


def _match(glob: str, names: list[str]) -> list[str]:
    """Return the names that ``glob`` matches, by themselves or by their layer."""
    matched = [name for name in names if fnmatchcase(name, glob) or fnmatchcase(name.rpartition(".")[0], glob)]
    if not matched:
        raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in names} | set(names))
    return matched
