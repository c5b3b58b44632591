"""The stage that quantizes weights and activations after training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
from attar._src.methods.quantize.ptq.bias_correction import corrected_biases, mean_requests
from attar._src.methods.quantize.ptq.calibrate import site_grids, site_requests
from attar._src.methods.quantize.ptq.registry import OBSERVERS, SOLVERS
from attar._src.methods.quantize.ptq.solver import input_requests
from attar._src.methods.quantize.unquantized import unquantized_values
from attar._src.model.collect import Request, collect
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
        layers = mean_requests(graph, bits) if self.correct_bias else {}
        expected = site_requests(_sites(piece, bits), observer) if self.activations is not None else {}
        wanted: dict[Any, tuple[Request, ...]] = {**self.inputs(graph, weights, bits), **layers, **expected}
        solved: dict[str, CompressedTensor] = {}
        seen: dict[Any, Any] = {}
        # A weight is solved as soon as its inputs are known, so that their statistics need not be kept.
        for key, found in collect(graph, wanted, calibration.batches, "calibrating"):
            if key in bits:
                inputs = dict(zip(solver.inputs, found, strict=True)) or None
                with _at(key):
                    scheme = self._scheme(bits[key], weights.get(key))
                    solved[key] = solver.solve(state[key].numpy(), scheme, inputs)
            else:
                (seen[key],) = found
        solved |= corrected_biases(state, solved, {layer: seen[layer] for layer in layers})
        tensors = {**piece.tensors, **solved}
        activations, rounded = piece.activations, piece.rounded
        if self.activations is not None:
            sites = _sites(replace(piece, tensors=tensors))
            # Where a solver left a weight in floating point, other sites remain than were expected.
            missing = site_requests([site for site in sites if site not in seen], observer)
            seen |= {site: found for site, (found,) in collect(graph, missing, calibration.batches, "calibrating")}
            activations = site_grids(graph, {site: seen[site] for site in sites}, observer, self.activations)
            rounded = frozenset(name for site in sites for name in site.sources)
        record: dict[str, Any] = to_record(self) | {
            "bits": self.bits,
            "calibration_examples": calibration.examples,
        }
        return with_integer_biases(piece.done(record, tensors=tensors, activations=activations, rounded=rounded))

    def inputs(
        self, graph: fx.GraphModule, weights: Mapping[str, Weight], names: Iterable[str]
    ) -> dict[str, tuple[Request, ...]]:
        """Return the statistics that the solver needs for each of the tensors called ``names``.

        Raises:
            SpecError: a tensor has no such statistics.
        """
        solver, found = SOLVERS[self.scales], {}
        for name in names:
            with _at(name):
                found[name] = input_requests(solver, graph, weights.get(name))
        return found

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


@contextmanager
def _at(name: str) -> Iterator[None]:
    """Begin the message of a ``SpecError`` with the tensor it is about."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"stage quantize at {name!r}: {error}") from error


def _on_grid(piece: CompressedModel, name: str) -> bool:
    """True for a tensor that is stored as codes."""
    return isinstance(piece.tensors.get(name), Quantized | Codebook)


def _floating(piece: CompressedModel, rounded: Collection[str] = ()) -> Callable[[fx.Node], bool]:
    """Return what is true of the layers whose weights are on no grid, nor among those that will be ``rounded``."""
    weights = find_weights(piece.traced.graph)
    floating = [weight for name, weight in weights.items() if name not in rounded and not _on_grid(piece, name)]
    readers = {reader for weight in floating for reader in weight.readers}
    return lambda node: node.name in readers


def _sites(piece: CompressedModel, rounded: Collection[str] = ()) -> tuple[Site, ...]:
    """Return the sites of the layers whose weights are on a grid, or will be ``rounded``."""
    return find_sites(piece.traced.graph, piece.traced.values, skip=_floating(piece, rounded))


def _match(glob: str, names: list[str]) -> list[str]:
    """Return the names that ``glob`` matches, by themselves or by their layer."""
    matched = [name for name in names if fnmatchcase(name, glob) or fnmatchcase(name.rpartition(".")[0], glob)]
    if not matched:
        raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in names} | set(names))
    return matched
