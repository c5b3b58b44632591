"""The rule ``quantize``: training with fake-quantized weights and activations, straight-through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.core.scheme import Scheme
from attar._src.core.spec import Spec, refusing_at, registered_word
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.activation_bits import check_own_bits, own_value_bits, site_bits
from attar._src.methods.quantize.field_types import GranularityChoice, GridBits
from attar._src.methods.quantize.grid_constraint import GridConstraint
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.qat.activation_grid import ActivationGrid
from attar._src.methods.quantize.qat.weight_grid import WeightGrid
from attar._src.work.compressed_model import MAIN
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView


class Rounding(Spec):
    """Settings of the grids of weights and activations in training.

    Attributes:
        bits: bits of a weight.
        activations: bits of what layers read, or None to leave activations in floating point; what is only added or
            averaged has at least 8.
        granularity: which weights share a scale: ``channel`` (or None; one scale for each index of the output axis),
            ``tensor``, ``group:SIZE``, ``bucket:SIZE``, or a granularity of ``core.scheme``.
        scales: ``absmax`` spans the current weight in every step; other solvers run every ``every`` steps.
        every: steps between two runs of a solver.
        keep: globs of layers or weights that get no grid here; a grid of an earlier stage stays.
        keep_activations: globs of layers whose inputs stay in floating point while their weights are quantized, or of
            values by their names in warnings and reports.
        overrides: glob of layers or weights -> bits; the last match wins.
        activation_overrides: glob of layers whose inputs have these bits, or of values -> bits; the last match wins.
        freeze: share of the stage after which the ranges of activations are fixed.
    """

    bits: GridBits = 4
    activations: GridBits | None = None
    granularity: GranularityChoice = None
    scales: Annotated[str, registered_word(SOLVERS)] = "absmax"
    every: Annotated[int, Field(ge=1)] = 50
    keep: tuple[str, ...] = ()
    keep_activations: tuple[str, ...] = ()
    overrides: dict[str, GridBits] = {}
    activation_overrides: dict[str, GridBits] = {}
    freeze: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _check_own_bits(self) -> Self:
        with refusing_at("activation_overrides"):
            check_own_bits(self.activations, self.activation_overrides)
        return self


class StraightThrough(Rounding, Rule):
    """Train full-precision weights through rounding, with straight-through gradients (Bengio et al. 2013, "Estimating
    or propagating gradients through stochastic neurons"; Jacob et al. 2018, "Quantization and training of neural
    networks", section 3).

    At 4 bits and fewer it is far more accurate than post-training quantization (``quantize`` without ``epochs``).
    """

    name: Literal["quantize"] = "quantize"

    def attach(self, learner: Learner) -> Constraint:
        solver = None if self.scales == "absmax" else SOLVERS[self.scales]
        if solver is not None and solver.inputs:
            raise SpecError(
                f"scales: solver {solver.name!r} needs {solver.needed()} of what a weight multiplies, and a rule in "
                "training has the weight alone; use absmax or mse, or the stage quantize without epochs after training"
            )
        bits = select_weights(learner, self.bits, self.overrides, keep=self.keep)
        weights = {}
        for name, width in bits.items():
            granularity = self.granularity or learner.weights[name].channels
            scheme = Scheme(bits=width, granularity=granularity)
            with prefixed_errors(f"quantize at {name!r}"):
                weights[name] = WeightGrid(learner.tensor(name), scheme, solver)
        values: dict[str, ActivationGrid] = {}
        floating = learner.floating_values(self.keep_activations)
        if self.activations is not None:
            own = own_value_bits({MAIN: learner.traced.graph}, self.activation_overrides)[MAIN]
            for place in learner.places(bits, floating):
                width = site_bits(place.site, self.activations, own)
                values |= dict.fromkeys(place.sources, ActivationGrid(width))
        return StraightThroughConstraint(self, weights, values, floating)


class StraightThroughConstraint(GridConstraint):
    """The grids of a :class:`StraightThrough`."""

    def __init__(
        self,
        rule: Rounding,
        weights: dict[str, WeightGrid],
        values: dict[str, ActivationGrid],
        floating: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(weights, values, floating)
        self.rule = rule

    def update(self, progress: Progress, weights: WeightView) -> None:
        for grid in self.parametrizations:
            if isinstance(grid, WeightGrid):
                grid.due = progress.step % self.rule.every == 0
            if isinstance(grid, ActivationGrid):
                grid.advance()
                grid.watching = progress.fraction < self.rule.freeze or not grid.known

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Update ranges with the last batch, and average them over the ranks."""
        for grid in self.parametrizations:
            if isinstance(grid, ActivationGrid):
                grid.advance()
                grid.put(mean(grid.range))
