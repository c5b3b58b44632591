"""The stage that quantizes weights and activations after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.spec import refusing_at
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.activation_bits import own_value_bits, site_bits
from attar._src.methods.quantize.dynamic_layers import NOTHING_DYNAMIC, make_dynamic, readers_of
from attar._src.methods.quantize.field_types import ActivationChoice, CodeBits, GranularityChoice, GridBits
from attar._src.methods.quantize.integer_layers import fit_integer_layers, fit_weights
from attar._src.methods.quantize.ptq.bias_correction import corrected_biases, mean_requests
from attar._src.methods.quantize.ptq.equalize.equalize import with_equal_channels
from attar._src.methods.quantize.ptq.globs import matching_tensors
from attar._src.methods.quantize.ptq.observers.calibration import site_grids, site_requests
from attar._src.methods.quantize.ptq.observers.constant_inputs import with_constant_values
from attar._src.methods.quantize.ptq.observers.observed import Observed
from attar._src.methods.quantize.ptq.observers.outliers import (
    add_clips,
    channel_reaches,
    range_warnings,
    source_requests,
)
from attar._src.methods.quantize.ptq.own_bits import own_bits
from attar._src.methods.quantize.ptq.registry import OBSERVERS
from attar._src.methods.quantize.ptq.solvers.absmax import Absmax
from attar._src.methods.quantize.ptq.solvers.solver import Solver
from attar._src.methods.quantize.ptq.solvers.weight_inputs import WeightInputs, unseen_warning
from attar._src.methods.quantize.ptq.weight_solvers import AFFINE, check_scheme, scheme_names, solve_weight, solvers_of
from attar._src.methods.quantize.recurrent_noise import without_noisy_recurrent
from attar._src.methods.quantize.unquantized import integer_sites
from attar._src.model.collect import Clip, Request, collect
from attar._src.model.sites import Site
from attar._src.model.weights import Weight, find_weights
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedGraph, CompressedModel, FileInfo, inputs_by_graph
from attar._src.work.context import Context, Trial
from attar._src.work.stage import Stage
from attar._src.work.value_globs import layer_reading, matching_values

#: Bits of weights that get their own from an allocation.
ANY_BITS = 8


class PostTrainingQuantize(Stage):
    """Round weights, and optionally activations, to affine grids.

    The weights are those of the stages before: pruned weights stay pruned, and grids of earlier stages that this one
    does not replace remain.

    Attributes:
        bits: bits of a weight; or a target, ``{size: 2.5}``, under which each weight not in ``overrides`` gets its own.
        activations: bits of what layers read, whose grids are calibrated; what is only added or averaged has at least
            8. ``dynamic``: linear layers and products with a weight quantize what they read, to 8 bits at run time,
            other layers read floating point; or None to leave activations in floating point. LSTM and GRU are dynamic
            with both.
        symmetric: whether weights have no zero point, as integer kernels need.
        granularity: which weights share a scale: ``channel`` (or None; one scale for each index of the output axis),
            ``tensor``, ``group:SIZE``, ``bucket:SIZE``, or a granularity of ``core.scheme``.
        scheme: the values that weights of ``bits`` may have: ``affine``, the whole grid, whose scales ``scales`` finds;
            ``binary`` (1 bit), ``ternary`` (2), ``apot`` (3 to 5) or ``codebook`` (1 to 6), which find theirs and see
            what a weight multiplies. Weights in ``overrides`` are affine.
        scales: name of the solver of the scales of affine weights.
        power_of_two: whether all scales, of weights and of activations, are powers of two, so that rescaling is a
            shift.
        rate: mean relative error of the layers' outputs (noise over signal) that one bit a weight less is worth, for
            solvers that minimize both (``gptq``): 0.003 takes a sixth off the codes of 4 bits. 0: the bits of the grid.
        observer: name of the observer of the activations' ranges.
        layers: globs of layers to quantize.
        keep: globs of layers or tensors that get no grid here; a grid of an earlier stage stays.
        keep_activations: globs of layers whose inputs stay in floating point while their weights are quantized, or of
            values by their names in warnings and reports; all layers that read such a value read it so.
        overrides: glob of layers or tensors -> bits, also outside ``layers``; the last match wins.
        activation_overrides: glob of layers whose inputs have these bits, or of values -> bits; the last match wins.
        correct_bias: subtract the mean output error of rounded weights from the biases.
        equalize: scale channels between layers first, so that both have equal ranges (:mod:`..equalize.equalize`); for
            one scale a tensor, and for activations of networks with channels of very different size.
    """

    works_on: ClassVar[type[CompressedModel]] = CompressedModel

    stage: Literal["quantize"] = "quantize"
    bits: CodeBits | BitTarget = 4
    activations: ActivationChoice = None
    symmetric: bool = True
    granularity: GranularityChoice = None
    scheme: str = AFFINE
    scales: str = "absmax"
    power_of_two: bool = False
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    observer: str = "percentile"
    layers: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    keep_activations: tuple[str, ...] = ()
    overrides: dict[str, GridBits] = {}
    activation_overrides: dict[str, GridBits] = {}
    correct_bias: bool = True
    equalize: bool = False

    @model_validator(mode="after")
    def _check_scheme(self) -> Self:
        with refusing_at("bits" if self.scheme == AFFINE else "scheme"):
            check_scheme(self.scheme, self.bits, symmetric=self.symmetric, rate=self.rate)
        return self

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
        model = self._with_floating_values(model)
        state, weights, readers = model.state(), model.weights(), model.readers()
        bits = self._bits(weights, state, model.aliases())
        for name, graph in model.graphs.items():
            own = {key: solver for key, solver in self._solvers(model, bits).items() if readers[key][0] == name}
            WeightInputs.of(own, model, graph.traced.graph)
        solved: dict[str, CompressedTensor] = {}
        for name, width in bits.items():
            with prefixed_errors(name):
                solved[name] = Absmax().solve(state[name].numpy(), self._scheme(width, weights.get(name)))
        return replace(model, tensors={**model.tensors, **solved})

    def run(self, model: CompressedModel, context: Context) -> CompressedModel:
        """Return the model with quantized weights and activations.

        Weights that several graphs share are rounded once; sites, and biases corrected, are those of each graph.

        Raises:
            DataError: there are several graphs, and one has no inputs of its own.
            UnknownName: a glob matches no layer; the error lists the nearest names.
            SpecError: a scheme does not fit a weight.
        """
        inputs = inputs_by_graph(model, context.calibration)
        if isinstance(self.bits, BitTarget):
            free = self.chosen(model, free=True)
            return own_bits(self.bits, model, inputs, context, free, self.describe(), self._with_bits)
        model, unequal = with_equal_channels(model) if self.equalize else (model, [])
        model = self._with_floating_values(model)
        model, fixed = with_constant_values(model, inputs) if isinstance(self.activations, int) else (model, [])
        # Values as earlier stages stored them; the traced graph has those before pruning and rounding.
        state = model.state()
        state |= {name: torch.from_numpy(np.array(t.dense())) for name, t in model.tensors.items() if name in state}
        weights = model.weights()
        bits = self._bits(weights, state, model.aliases())
        solved: dict[str, CompressedTensor] = {}
        use = context.use
        seen = {name: self._solve(model, name, inputs[name], state, bits, solved, use) for name in model.graphs}
        tensors, graphs = {**model.tensors, **solved}, dict(model.graphs)
        warnings = [*unequal, *fixed, *(each for found in seen.values() for each in found.warnings)]
        unseen = {key: why for found in seen.values() for key, why in found.unseen.items()}
        tables = [key for key in unseen if key in weights and weights[key].role == "embedding"]
        warnings += unseen_warning(self.scales if self.scheme == AFFINE else self.scheme, unseen, tables)
        for name in graphs if self.activations is not None else ():
            if self.activations == "dynamic":
                graphs[name] = self._dynamic(graphs[name], bits, tensors)
            else:
                graphs[name], more = self._calibrate(model, name, inputs[name], bits, tensors, seen[name])
                warnings += more
        if self.activations == "dynamic" and not any(graph.dynamic for graph in graphs.values()):
            warnings.append(NOTHING_DYNAMIC)
        examples = sum(each.examples for each in inputs.values())
        record: dict[str, Any] = self.describe() | {"bits": self.bits, "calibration_examples": examples}
        record |= {"without_inputs": sorted(unseen)} if unseen else {}
        every = tuple(dict.fromkeys((*model.warnings, *warnings)))
        whole = model.state()
        zeros = {name: (state[name] == 0) & (whole[name] != 0) for name in solved.keys() & model.tensors.keys()}
        pruned = {**model.pruned, **{name: each.numpy() for name, each in zeros.items() if each.any()}}
        schemes = scheme_names(model.schemes, solved, self._solvers(model, bits))
        rounded = model.done(record, tensors=tensors, graphs=graphs, warnings=every, pruned=pruned, schemes=schemes)
        fitted = fit_weights(rounded, {name: state[name].numpy() for name in solved})
        means = {layer: mean for found in seen.values() for layer, mean in found.means.items()}
        biases = corrected_biases(state, fitted.tensors, means)
        done = fit_integer_layers(replace(fitted, tensors={**fitted.tensors, **biases}))
        if not isinstance(self.activations, int):
            return done
        done, more = without_noisy_recurrent(done, inputs)
        return replace(done, warnings=(*done.warnings, *more))

    def _with_bits(self, bits: Mapping[str, int], kept: Sequence[str]) -> PostTrainingQuantize:
        keep = (*self.keep, *kept)
        return self.model_copy(update={"bits": ANY_BITS, "overrides": {**bits, **self.overrides}, "keep": keep})

    def _with_floating_values(self, model: CompressedModel) -> CompressedModel:
        deployed = {name: (each.folded_later or each.traced).graph for name, each in model.graphs.items()}
        kept = matching_values(deployed, self.keep_activations)
        graphs = {name: replace(each, floating=each.floating | kept[name]) for name, each in model.graphs.items()}
        return replace(model, graphs=graphs)

    def _solve(
        self,
        model: CompressedModel,
        name: str,
        inputs: CalibrationInputs,
        state: Mapping[str, torch.Tensor],
        bits: Mapping[str, int],
        solved: dict[str, CompressedTensor],
        use: FileInfo | None,
    ) -> Observed:
        """Add the tensors of one graph to ``solved``; return what was observed of its sites."""
        graph, program, readers = model.graphs[name], model.unrounded(name), model.readers()
        own = {key: solver for key, solver in self._solvers(model, bits).items() if readers[key][0] == name}
        weights = model.weights()
        needed = WeightInputs.of(own, model, program).with_tables(own, weights, inputs, graph, use)
        program = needed.graph
        means = mean_requests(program, own, model.shared()) if self.correct_bias else {}
        sites = integer_sites(graph, model.tensors, bits) if isinstance(self.activations, int) else ()
        wanted: dict[Any, tuple[Request, ...]] = {**needed.requests, **means}
        wanted |= site_requests(sites, OBSERVERS[self.observer])
        wanted |= source_requests(sites)
        clips: dict[str, Clip] = {}
        while True:
            observed = Observed({}, clips)
            # A weight is solved once the statistics of its inputs are complete, so that they need not be kept.
            for key, found in collect(program, wanted, inputs.batches, "calibrating", clips=clips):
                observed.count(wanted[key], found)
                if key in own:
                    with prefixed_errors(f"stage quantize at {key!r}"):
                        scheme = self._scheme(bits[key], weights.get(key))
                        seen = needed.statistics(own[key], key, found)
                        solved[key] = solve_weight(own[key], state[key].numpy(), scheme, seen)
                else:
                    (observed.seen[key],) = found
            if not add_clips(clips, observed.seen):
                break
        observed.means = {layer: observed.seen.pop(layer) for layer in means}
        observed.unseen = dict(needed.unseen)
        return observed

    def _calibrate(
        self,
        model: CompressedModel,
        name: str,
        inputs: CalibrationInputs,
        bits: Mapping[str, int],
        tensors: Mapping[str, CompressedTensor],
        observed: Observed,
    ) -> tuple[CompressedGraph, list[str]]:
        """Return one graph with grids for the sites of its quantized layers, and warnings about them.

        A stage of some ``layers`` leaves the grids of sites that none of these reads or writes as they are.
        """
        assert isinstance(self.activations, int)
        graph, program, observer = model.graphs[name], model.unrounded(name), OBSERVERS[self.observer]
        quantized = integer_sites(graph, tensors)
        touched = quantized if self.layers == ("*",) else integer_sites(graph, {}, bits)
        read = {source for site in touched for source in site.sources}
        sites: list[Site] = []
        kept: dict[str, Activation] = {}
        for site in quantized:
            if read.isdisjoint(site.sources) and graph.activations.keys() >= set(site.sources):
                kept |= {value: graph.activations[value] for value in site.values if value in graph.activations}
            else:
                sites.append(site)
        # If a solver left a weight in floating point, the sites differ from the expected ones.
        missing = site_requests([site for site in sites if site not in observed.seen], observer)
        more = collect(program, missing, inputs.batches, "calibrating", clips=observed.clips)
        seen = observed.seen | {site: found for site, (found,) in more}
        own = own_value_bits({each: of.traced.graph for each, of in model.graphs.items()}, self.activation_overrides)
        widths = {site: site_bits(site, self.activations, own[name]) for site in sites}
        ranges = {site: seen[site] for site in sites}
        grids = kept | site_grids(ranges, observer, widths, power_of_two=self.power_of_two)
        ordered = {node.name: grids[node.name] for node in program.graph.nodes if node.name in grids}
        rounded = frozenset(source for site in sites for source in site.sources)
        layers = {site: layer_reading(program, site.values) for site in sites}
        channels = channel_reaches(program, inputs.batches)
        spans = {site: grids[site.sources[0]] for site in sites}
        warnings = range_warnings(spans, seen, observed.clips, layers, channels)
        rounded |= graph.rounded & kept.keys()
        made = replace(graph, activations=ordered, rounded=rounded)
        return make_dynamic(made, tensors, self._touched(graph, bits), recurrent=True), warnings

    def _dynamic(
        self, graph: CompressedGraph, bits: Mapping[str, int], tensors: Mapping[str, CompressedTensor]
    ) -> CompressedGraph:
        """Return a graph whose quantized layers are dynamic, those that can be and read no value with a grid.

        A stage of some ``layers`` leaves the grids of earlier stages as they are.
        """
        if self.layers == ("*",):
            graph = replace(graph, activations={}, rounded=frozenset())
        return make_dynamic(graph, tensors, self._touched(graph, bits))

    def _touched(self, graph: CompressedGraph, bits: Mapping[str, int]) -> set[str]:
        """Return the nodes that read what this stage quantizes; all that read a weight if it is for all layers."""
        return readers_of(graph, find_weights(graph.traced.graph) if self.layers == ("*",) else bits)

    def _solvers(self, model: CompressedModel, bits: Mapping[str, int]) -> dict[str, Solver]:
        """Return the solver of each tensor to quantize: one bit of each weight costs ``rate`` times the mean error.

        All weights of the model count, so that one has the same solution whichever others are chosen with it.
        """
        state = model.state()
        elements = {name: state[name].numel() for name in {**model.weights(), **bits}}
        solvers = solvers_of(elements, self.scheme, self.scales, self.rate, affine=self._overridden(model))
        return {name: solvers[name] for name in bits}

    def _overridden(self, model: CompressedModel) -> set[str]:
        aliases, known = model.aliases(), [*model.state()]
        return {name for glob in self.overrides for name in matching_tensors(glob, known, aliases)}

    def chosen(self, model: CompressedModel, *, free: bool = False) -> list[str]:
        """Return the names of the tensors that this stage quantizes, in order; ``free``: without ``overrides``."""
        fixed = self._overridden(model) if free else ()
        return [each for each in self._bits(model.weights(), model.state(), model.aliases()) if each not in fixed]

    def _selection(self) -> tuple[object, ...]:
        return self.layers, self.keep, set(self.overrides)

    def _bits(
        self, weights: Mapping[str, Weight], state: Mapping[str, torch.Tensor], aliases: Mapping[str, str]
    ) -> dict[str, int]:
        """Return the bits of every tensor to quantize, in the order of ``state``.

        A tied weight answers to each of its names: ``aliases`` maps the others to the one in ``state``.
        """
        known = [name for name, value in state.items() if value.is_floating_point()]
        bits = {
            name: self.bits if isinstance(self.bits, int) else ANY_BITS
            for glob in self.layers
            for name in matching_tensors(glob, [n for n in known if n in weights], aliases)
        }
        for glob, width in self.overrides.items():
            matched = matching_tensors(glob, known, aliases)
            # The glob of a layer selects its weights; a bias or a table only if it matches no weight.
            bits |= dict.fromkeys([name for name in matched if name in weights] or matched, width)
        kept = {name for glob in self.keep for name in matching_tensors(glob, known, aliases)}
        return {name: bits[name] for name in known if name in bits and name not in kept}

    def _scheme(self, bits: int, weight: Weight | None) -> Scheme:
        granularity = self.granularity or (weight.channels if weight else PerChannel())
        return Scheme(bits=bits, symmetric=self.symmetric, granularity=granularity, power_of_two=self.power_of_two)
