"""The stage that quantizes weights and activations after training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.spec import refusing_at, registered_word
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.allocate.level import FLOAT, Level
from attar._src.methods.allocate.own_bits import own_bits
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.activation_bits import check_own_bits
from attar._src.methods.quantize.dynamic_layers import NOTHING_DYNAMIC
from attar._src.methods.quantize.field_types import (
    ActivationChoice,
    CodeBits,
    GranularityChoice,
    GridBits,
    read_granularity,
)
from attar._src.methods.quantize.integer_layers import fit_integer_layers, fit_weights
from attar._src.methods.quantize.ptq.activation_grids import ActivationGrids, with_floating_values
from attar._src.methods.quantize.ptq.bias_correction import corrected_biases, mean_requests
from attar._src.methods.quantize.ptq.equalize.equalize import with_equal_channels
from attar._src.methods.quantize.ptq.globs import bits_of_tensors, matching_tensors
from attar._src.methods.quantize.ptq.observers.calibration import site_requests
from attar._src.methods.quantize.ptq.observers.constant_inputs import with_constant_values
from attar._src.methods.quantize.ptq.observers.observed import Observed
from attar._src.methods.quantize.ptq.observers.outliers import add_clips, source_requests
from attar._src.methods.quantize.ptq.registry import OBSERVERS, SOLVERS
from attar._src.methods.quantize.ptq.solutions import Solutions
from attar._src.methods.quantize.ptq.solvers.absmax import Absmax
from attar._src.methods.quantize.ptq.solvers.blas import one_blas_thread
from attar._src.methods.quantize.ptq.solvers.solver import Solver
from attar._src.methods.quantize.ptq.solvers.weight_inputs import WeightInputs, unseen_warning
from attar._src.methods.quantize.ptq.weight_solvers import (
    AFFINE,
    AUTO_SCALES,
    alternative_levels,
    check_scheme,
    most_seeing,
    scheme_names,
    solve_levels,
    solvers_of,
    with_fields_that_follow,
)
from attar._src.methods.quantize.recurrent_noise import without_noisy_recurrent
from attar._src.methods.quantize.row_scales import with_row_scales
from attar._src.methods.quantize.unquantized import integer_sites
from attar._src.model.collect import Clip, Request, collect
from attar._src.model.weights import Weight
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo, inputs_by_graph
from attar._src.work.context import Context, Trial
from attar._src.work.stage import Stage

TriedLevels = Sequence[Level]
#: Bits at which weights are tried that get their own from an allocation: so few that a later stage may improve them.
ANY_BITS = 4


class PostTrainingQuantize(Stage):
    """Round weights, and optionally activations, to affine grids.

    The weights are those of the stages before: pruned weights stay pruned, and grids of earlier stages that this one
    does not replace remain.

    Attributes:
        bits: bits of a weight, 4 by default or what the scheme has; or a target, ``{size: 2.5}``, under which each
            weight not in ``overrides`` gets its own.
        activations: bits of what layers read, whose grids are calibrated; what is added or averaged has at least 8, and
            is rounded a second time for layers that read it, too. ``dynamic``: linear layers and products with a weight
            quantize what they read, to 8 bits at run time, other layers read floating point; or None to leave
            activations in floating point. LSTM and GRU are dynamic with both.
        symmetric: whether weights have no zero point, as integer kernels need.
        granularity: which weights share a scale: ``channel`` (or None), ``tensor``, ``group:SIZE``, ``bucket:SIZE``.
        scheme: the values that weights of ``bits`` may have: ``affine``, the whole grid, whose scales ``scales`` finds;
            ``binary`` (1 bit), ``ternary`` (2), ``apot`` (3 to 5) or ``codebook`` (1 to 6), which find theirs and see
            what a weight multiplies. Weights in ``overrides`` are affine.
        scales: solver of affine weights; ``auto`` is ``gptq`` up to 5 bits and under a target, ``absmax`` else.
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
    scales: Annotated[str, registered_word(SOLVERS)] = AUTO_SCALES
    power_of_two: bool = False
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    observer: Annotated[str, registered_word(OBSERVERS)] = "auto"
    layers: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    keep_activations: tuple[str, ...] = ()
    overrides: dict[str, GridBits] = {}
    activation_overrides: dict[str, GridBits] = {}
    correct_bias: bool = True
    equalize: bool = False

    _following = model_validator(mode="before")(with_fields_that_follow)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        with refusing_at("bits" if self.scheme == AFFINE else "scheme"):
            check_scheme(self.scheme, self.bits, symmetric=self.symmetric, rate=self.rate)
        with refusing_at("activation_overrides"):
            check_own_bits(self.activations, self.activation_overrides)
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

    def check_behind(self, behind: Sequence[Stage]) -> None:
        """Refuse what changes the file for which a target chose bits: a training, or other grids."""
        for each in behind if isinstance(self.bits, BitTarget) else ():
            if each.works_on is not CompressedModel or isinstance(each, PostTrainingQuantize):
                raise SpecError(
                    f"{each.stage} behind a target would change the file whose bits were chosen for it; put it before "
                    "this stage, or write the bits that its note tells as bits and overrides in place of the target"
                )

    def try_on(self, model: CompressedModel, trial: Trial) -> CompressedModel:
        """Look up what is named, equalize, and round every selected weight with ``absmax``."""
        OBSERVERS[self.observer]
        if isinstance(self.bits, BitTarget) and self.bits.sensitivity:
            SensitivityTable.read(self.bits.sensitivity)
        model = with_equal_channels(model)[0] if self.equalize else model
        model = with_floating_values(model, self.keep_activations, self.activation_overrides)
        state, weights, readers = model.state(), model.weights(), model.readers()
        bits = self._bits(model)
        for name, graph in model.graphs.items():
            own = {
                key: solver for key, solver in self._solvers(model, bits, self.rate).items() if readers[key][0] == name
            }
            WeightInputs.of(self._solvers(model, own, self.rate), model, graph.traced.graph)
        solved: dict[str, CompressedTensor] = {}
        for name, width in bits.items():
            with prefixed_errors(name):
                solved[name] = Absmax().solve(state[name].numpy(), self.grid_at(Level(width), weights.get(name)))
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
        model, unequal = with_equal_channels(model) if self.equalize else (model, [])
        model = replace(model, warnings=(*model.warnings, *unequal))
        if isinstance(self.bits, BitTarget):
            free, make = self.chosen(model, free=True), partial(self.choice, model, context.use)
            rates = (self.rate,) if self.rate else SOLVERS[self.scales].rates or (0.0,)
            more = alternative_levels(self.bits.alternatives, symmetric=self.symmetric)
            return own_bits(self.bits, model, inputs, context, free, rates, self.describe(), partial(make, free), more)
        levels = {name: Level(width, self.rate) for name, width in self._bits(model).items()}
        alone = {name: (each,) for name, each in levels.items()}
        return self._rounded(self._solutions(model, context.use, inputs, alone), levels)

    def choice(
        self,
        model: CompressedModel,
        use: FileInfo | None,
        free: Collection[str],
        inputs: Mapping[str, CalibrationInputs],
        tried: TriedLevels,
    ) -> Callable[[Mapping[str, Level]], CompressedModel]:
        """Return levels of the ``free`` tensors, of those ``tried`` -> the model; others have those of the stage."""
        fixed = {name: Level(width, self.rate) for name, width in self._bits(model).items() if name not in free}
        levels = {name: (fixed[name],) if name in fixed else tried for name in self._bits(model)}
        solutions = self._solutions(model, use, inputs, levels)

        def at(chosen: Mapping[str, Level]) -> CompressedModel:
            every = {**fixed, **chosen}
            return self._rounded(solutions, {name: every[name] for name in levels if every[name].value != FLOAT})

        return at

    def _solutions(
        self,
        model: CompressedModel,
        use: FileInfo | None,
        inputs: Mapping[str, CalibrationInputs],
        levels: Mapping[str, TriedLevels],
    ) -> Solutions:
        """Solve weights at levels, several of each."""
        model = with_floating_values(model, self.keep_activations, self.activation_overrides)
        model, fixed = with_constant_values(model, inputs) if isinstance(self.activations, int) else (model, [])
        model = self._grids.with_readings(model, levels)
        # Values as earlier stages stored them; the traced graph has those before pruning and rounding.
        state = model.state()
        state |= {name: torch.from_numpy(np.array(t.dense())) for name, t in model.tensors.items() if name in state}
        found = Solutions(model, use, inputs, state, warnings=fixed)
        for name in model.graphs:
            found.observed[name] = self._solve(found, name, levels)
        return found

    def _rounded(self, solutions: Solutions, levels: Mapping[str, Level]) -> CompressedModel:
        """Return the model with weights at these levels, which were solved, and with quantized activations."""
        model, inputs, state, seen = solutions.model, solutions.inputs, solutions.state, solutions.observed
        weights, solved = model.weights(), {name: solutions.tensors[name][level] for name, level in levels.items()}
        tensors, graphs = {**model.tensors, **solved}, dict(model.graphs)
        warnings = [*solutions.warnings, *(each for found in seen.values() for each in found.warnings)]
        unseen = {key: why for key, why in solutions.unseen.items() if key in solved}
        tables = [key for key in unseen if key in weights and weights[key].role == "embedding"]
        warnings += unseen_warning(self.scales if self.scheme == AFFINE else self.scheme, unseen, tables)
        for name in graphs if self.activations is not None else ():
            if self.activations == "dynamic":
                graphs[name] = self._grids.dynamic(graphs[name], levels, tensors)
            else:
                graphs[name], more = self._grids.static(model, name, inputs[name], levels, tensors, seen[name])
                warnings += more
        if self.activations == "dynamic" and not any(graph.dynamic for graph in graphs.values()):
            warnings.append(NOTHING_DYNAMIC)
        examples = sum(each.examples for each in inputs.values())
        record: dict[str, Any] = self.describe() | {"bits": self.bits, "calibration_examples": examples}
        record |= {"without_inputs": sorted(unseen)} if unseen else {}
        every = tuple(dict.fromkeys((*model.warnings, *warnings)))
        pruned = {**model.pruned, **solutions.pruned(solved)}
        solvers = {key: self._solvers(model, (key,), at.rate, at.scheme)[key] for key, at in levels.items()}
        schemes = scheme_names(model.schemes, solved, solvers)
        rounded = model.done(record, tensors=tensors, graphs=graphs, warnings=every, pruned=pruned, schemes=schemes)
        fitted = fit_weights(rounded, {name: state[name].numpy() for name in solved})
        means = {layer: mean for found in seen.values() for layer, mean in found.means.items()}
        biases = corrected_biases(state, {name: fitted.tensors[name] for name in solved}, means)
        done = fit_integer_layers(replace(fitted, tensors={**fitted.tensors, **biases}))
        if self.activations == "dynamic":
            return with_row_scales(done, inputs)
        if self.activations is None:
            return done
        done, more = without_noisy_recurrent(done, inputs)
        return replace(done, warnings=(*done.warnings, *more))

    @one_blas_thread()
    def _solve(self, found: Solutions, name: str, levels: Mapping[str, TriedLevels]) -> Observed:
        """Solve the tensors of one graph; return what was observed of its sites."""
        model, inputs, state = found.model, found.inputs[name], found.state
        graph, program, readers, weights = model.graphs[name], model.unrounded(name), model.readers(), model.weights()
        ways = {(level.rate, level.scheme) for each in levels.values() for level in each}
        solvers = {way: self._solvers(model, levels, *way) for way in ways}
        several = {key: {at: solvers[at.rate, at.scheme][key] for at in each} for key, each in levels.items()}
        own = {key: most_seeing(each.values()) for key, each in several.items() if name in readers[key]}
        needed = WeightInputs.of(own, model, program).with_tables(own, inputs, graph, found.use)
        program = needed.graph
        means = mean_requests(program, own, model.shared()) if self.correct_bias else {}
        sites = integer_sites(graph, model.tensors, levels) if isinstance(self.activations, int) else ()
        wanted: dict[Any, tuple[Request, ...]] = {**needed.requests, **means}
        wanted |= site_requests(sites, OBSERVERS[self.observer])
        wanted |= source_requests(sites)
        clips: dict[str, Clip] = {}
        while True:
            observed = Observed({}, clips)
            # A weight is solved once the statistics of its inputs are complete, so that they need not be kept.
            for key, collected in collect(program, wanted, inputs.batches, "calibrating", clips=clips):
                observed.count(wanted[key], collected)
                if key not in own:
                    (observed.seen[key],) = collected
                    continue
                weight, statistics = state[key].numpy(), needed.statistics(own[key], key, collected)
                if len(readers[key]) > 1:
                    statistics = found.joined(key, name, statistics)
                    if name != readers[key][-1]:
                        continue
                with prefixed_errors(f"stage quantize at {key!r}"):
                    scheme = partial(self.grid_at, weight=weights.get(key))
                    found.tensors[key] = solve_levels(several[key], weight, scheme, statistics)
            if not add_clips(clips, observed.seen):
                break
        observed.means = {layer: observed.seen.pop(layer) for layer in means}
        observed.unseen = dict(needed.unseen)
        return observed

    @property
    def _grids(self) -> ActivationGrids:
        bits = self.activations if isinstance(self.activations, int) else None
        observer, every = OBSERVERS[self.observer], self.layers == ("*",)
        return ActivationGrids(bits, observer, self.activation_overrides, self.power_of_two, every)

    def _solvers(
        self, model: CompressedModel, names: Collection[str], rate: float, scheme: str = ""
    ) -> dict[str, Solver]:
        """Return the solver of each tensor to quantize: one bit of each weight costs ``rate`` times the mean error.

        All weights of the model count, so that one has the same solution whichever others are chosen with it.
        """
        state, bits = model.state(), self._bits(model)
        elements = {name: state[name].numel() for name in {**model.weights(), **dict.fromkeys(names)}}
        own, scheme = {name: bits[name] for name in names}, scheme or self.scheme
        return solvers_of(elements, own, scheme, self.scales, rate, self._overridden(model))

    def _overridden(self, model: CompressedModel) -> set[str]:
        aliases, known = model.aliases(), [*model.state()]
        return {name for glob in self.overrides for name in matching_tensors(glob, known, aliases)}

    def chosen(self, model: CompressedModel, *, free: bool = False) -> list[str]:
        """Return the names of the tensors that this stage quantizes, in order; ``free``: without ``overrides``."""
        fixed = self._overridden(model) if free else ()
        return [each for each in self._bits(model) if each not in fixed]

    def _selection(self) -> tuple[object, ...]:
        return self.layers, self.keep, set(self.overrides)

    def _bits(self, model: CompressedModel) -> dict[str, int]:
        """Return the bits of every tensor to quantize, in the order of ``state``."""
        bits = self.bits if isinstance(self.bits, int) else ANY_BITS
        return bits_of_tensors(model, dict.fromkeys(self.layers, bits), self.overrides, self.keep)

    def grid_at(self, at: Level, weight: Weight | None = None) -> Scheme:
        """Return the grid of a weight at a level."""
        own = read_granularity(at.granularity) if at.granularity else self.granularity
        own, two = own or (weight.channels if weight else PerChannel()), self.power_of_two
        return Scheme(bits=int(at.value), symmetric=self.symmetric, granularity=own, power_of_two=two)
