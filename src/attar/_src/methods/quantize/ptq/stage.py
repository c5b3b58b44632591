"""The stage that quantizes weights and activations after training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import fx

from attar._src.core.errors import SpecError, UnknownName, prefixed_errors
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.quantize.field_types import GranularityChoice, GridBits
from attar._src.methods.quantize.integer_bias import with_integer_biases
from attar._src.methods.quantize.ptq.bias_correction import corrected_biases, mean_requests
from attar._src.methods.quantize.ptq.calibration import site_grids, site_requests
from attar._src.methods.quantize.ptq.registry import OBSERVERS, SOLVERS
from attar._src.methods.quantize.ptq.solver import input_requests
from attar._src.methods.quantize.ptq.solvers import Absmax
from attar._src.methods.quantize.unquantized import integer_sites
from attar._src.model.collect import Request, collect
from attar._src.model.weights import Weight, find_weights
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context, Trial
from attar._src.work.stage import Stage


class PostTrainingQuantize(Stage):
    """Round weights, and optionally activations, to affine grids.

    The weights are those of the stages before: pruned weights stay pruned, and grids of earlier stages that this one
    does not replace remain.

    Attributes:
        bits: bits of a weight.
        activations: bits of an activation, or None to leave activations in floating point.
        symmetric: whether weights have no zero point, as integer kernels need.
        granularity: which weights share a scale: ``channel`` (or None; one scale for each index of the output axis),
            ``tensor``, ``group:SIZE``, ``bucket:SIZE``, or a granularity of ``core.scheme``.
        scales: name of the solver of the weights' scales.
        observer: name of the observer of the activations' ranges.
        layers: globs of layers to quantize.
        keep: globs of layers or tensors that get no grid here; a grid of an earlier stage stays.
        overrides: glob of layers or tensors -> bits, also outside ``layers``; the last match wins.
        correct_bias: subtract the mean output error of rounded weights from the biases.
    """

    works_on: ClassVar[type[CompressedModel]] = CompressedModel

    stage: Literal["quantize"] = "quantize"
    bits: GridBits = 4
    activations: GridBits | None = None
    symmetric: bool = True
    granularity: GranularityChoice = None
    scales: str = "absmax"
    observer: str = "percentile"
    layers: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    overrides: dict[str, GridBits] = {}
    correct_bias: bool = True

    def check(self, before: Sequence[Stage]) -> None:
        """Refuse to quantize the same layers twice without training in between."""
        for index, earlier in reversed(list(enumerate(before))):
            if earlier.works_on is not CompressedModel:
                return
            if isinstance(earlier, PostTrainingQuantize) and earlier._selection() == self._selection():
                raise SpecError(
                    f"stage {index} quantizes the same layers already; name others with layers, or remove one stage"
                )

    def try_on(self, model: CompressedModel, trial: Trial) -> CompressedModel:
        """Look up solver and observer, and round every selected weight with ``absmax``."""
        OBSERVERS[self.observer]
        state, weights = model.traced.state(), find_weights(model.traced.graph)
        bits = self._bits(weights, state)
        self._input_requests(model.traced.graph, weights, bits)
        solved: dict[str, CompressedTensor] = {}
        for name, width in bits.items():
            with prefixed_errors(name):
                solved[name] = Absmax().solve(state[name].numpy(), self._scheme(width, weights.get(name)))
        return replace(model, tensors={**model.tensors, **solved})

    def run(self, model: CompressedModel, context: Context) -> CompressedModel:
        """Return the model with quantized weights and activations.

        Raises:
            UnknownName: a glob matches no layer; the error lists the nearest names.
            SpecError: a scheme does not fit a weight.
        """
        solver, observer, batches = SOLVERS[self.scales], OBSERVERS[self.observer], context.calibration.batches
        # Values as earlier stages stored them; the traced graph has those before pruning and rounding.
        state = model.traced.state()
        state |= {name: torch.from_numpy(np.array(t.dense())) for name, t in model.tensors.items() if name in state}
        graph = replace(model, activations={}, rounded=frozenset()).simulate() if model.tensors else model.traced.graph
        weights = find_weights(model.traced.graph)
        bits = self._bits(weights, state)
        layers = mean_requests(graph, bits) if self.correct_bias else {}
        expected = site_requests(integer_sites(model, bits), observer) if self.activations is not None else {}
        wanted: dict[Any, tuple[Request, ...]] = {**self._input_requests(graph, weights, bits), **layers, **expected}
        solved: dict[str, CompressedTensor] = {}
        seen: dict[Any, Any] = {}
        # A weight is solved once the statistics of its inputs are complete, so that they need not be kept.
        for key, found in collect(graph, wanted, batches, "calibrating"):
            if key in bits:
                inputs = dict(zip(solver.inputs, found, strict=True)) or None
                with prefixed_errors(f"stage quantize at {key!r}"):
                    scheme = self._scheme(bits[key], weights.get(key))
                    solved[key] = solver.solve(state[key].numpy(), scheme, inputs)
            else:
                (seen[key],) = found
        solved |= corrected_biases(state, solved, {layer: seen[layer] for layer in layers})
        changes: dict[str, Any] = {"tensors": {**model.tensors, **solved}}
        if self.activations is not None:
            sites = integer_sites(replace(model, **changes))
            # If a solver left a weight in floating point, the sites differ from the expected ones.
            missing = site_requests([site for site in sites if site not in seen], observer)
            seen |= {site: found for site, (found,) in collect(graph, missing, batches, "calibrating")}
            grids = site_grids(graph, {site: seen[site] for site in sites}, observer, self.activations)
            changes |= {"activations": grids, "rounded": frozenset(name for site in sites for name in site.sources)}
        record = self.describe() | {"bits": self.bits, "calibration_examples": context.calibration.examples}
        return with_integer_biases(model.done(record, **changes))

    def _input_requests(
        self, graph: fx.GraphModule, weights: Mapping[str, Weight], names: Iterable[str]
    ) -> dict[str, tuple[Request, ...]]:
        """Return tensor -> the requests of the solver for its inputs."""
        solver, found = SOLVERS[self.scales], {}
        for name in names:
            with prefixed_errors(f"stage quantize at {name!r}"):
                found[name] = input_requests(solver, graph, weights.get(name))
        return found

    def _selection(self) -> tuple[object, ...]:
        return self.layers, self.keep, set(self.overrides)

    def _bits(self, weights: Mapping[str, Weight], state: Mapping[str, torch.Tensor]) -> dict[str, int]:
        """Return the bits of every tensor to quantize, in the order of ``state``."""
        known = [name for name, value in state.items() if value.is_floating_point()]
        bits = {name: self.bits for glob in self.layers for name in _match(glob, [n for n in known if n in weights])}
        for glob, width in self.overrides.items():
            matched = _match(glob, known)
            # The glob of a layer selects its weights; a bias or a table only if it matches no weight.
            bits |= dict.fromkeys([name for name in matched if name in weights] or matched, width)
        kept = {name for glob in self.keep for name in _match(glob, known)}
        return {name: bits[name] for name in known if name in bits and name not in kept}

    def _scheme(self, bits: int, weight: Weight | None) -> Scheme:
        granularity = self.granularity or PerChannel(axis=weight.axis if weight else 0)
        return Scheme(bits=bits, symmetric=self.symmetric, granularity=granularity)


def _match(glob: str, names: list[str]) -> list[str]:
    """Return the names that match ``glob`` themselves or whose layer does."""
    matched = [name for name in names if fnmatchcase(name, glob) or fnmatchcase(name.rpartition(".")[0], glob)]
    if not matched:
        raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in names} | set(names))
    return matched
