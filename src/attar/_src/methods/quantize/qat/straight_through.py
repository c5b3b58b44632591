"""The rule that trains with rounded weights and activations: fake quantization with a straight-through estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.spec import Spec
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.field_types import GranularityChoice, GridBits
from attar._src.methods.quantize.integer_bias import with_integer_biases
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.qat.activation_grid import ActivationGrid
from attar._src.methods.quantize.qat.weight_grid import WeightGrid
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView


class Rounding(Spec):
    """The grids of weights, and of activations where asked, in training.

    Attributes:
        bits: bits of a weight.
        activations: bits of an activation, or None to leave activations in floating point.
        granularity: which weights share a scale: ``channel`` (or None: one for each index of the weight's own output
            axis), ``tensor``, ``group:SIZE``, ``bucket:SIZE``, or a granularity of ``core.scheme``.
        scales: ``absmax`` spans the weight as it is in every step; another solver is asked every ``every`` steps.
        every: how many steps lie between two calls of a solver.
        keep: globs of layers or weights this rule leaves alone: in floating point, unless an earlier stage holds them
            to a grid, which they stay on.
        overrides: glob of layers or weights -> bits; of several that match, the last holds.
        freeze: the share of the stage after which the activations' ranges are fixed.
    """

    bits: GridBits = 4
    activations: GridBits | None = None
    granularity: GranularityChoice = None
    scales: str = "absmax"
    every: Annotated[int, Field(ge=1)] = 50
    keep: tuple[str, ...] = ()
    overrides: dict[str, GridBits] = {}
    freeze: Annotated[float, Field(gt=0, le=1)] = 0.5


class StraightThrough(Rounding, Rule):
    """Weights, and activations where asked, are read rounded; the gradient passes the rounding as if it were not there.

    The full-precision weights take the steps (Bengio et al. 2013, "Estimating or propagating gradients through
    stochastic neurons"; Jacob et al. 2018, "Quantization and training of neural networks", section 3). At 4 bits and
    fewer it is worth far more than rounding afterwards, the stage ``quantize`` without ``epochs``.
    """

    name: Literal["quantize"] = "quantize"

    def attach(self, learner: Learner) -> Constraint:
        """Return the grids of the weights and sites that are chosen.

        Raises:
            UnknownName: a glob matches no layer, or there is no such solver.
            SpecError: a scheme does not fit a weight, or the solver needs statistics of its inputs.
        """
        solver = None if self.scales == "absmax" else SOLVERS[self.scales]
        if solver is not None and solver.inputs:
            raise SpecError(
                f"scales: solver {solver.name!r} needs {solver.needed()} of what a weight multiplies, and a rule in "
                "training has the weight alone; use absmax or mse, or the stage quantize without epochs after training"
            )
        bits = select_weights(learner, self.bits, self.overrides, keep=self.keep)
        weights = {}
        for name, width in bits.items():
            granularity = self.granularity or PerChannel(axis=learner.weights[name].axis)
            scheme = Scheme(bits=width, granularity=granularity)
            try:
                weights[name] = WeightGrid(learner.tensor(name), scheme, solver)
            except SpecError as error:
                raise SpecError(f"quantize at {name!r}: {error}") from error
        values: dict[str, ActivationGrid] = {}
        if self.activations is not None:
            places = learner.places(bits)
            for place in places:
                values |= dict.fromkeys(place.sources, ActivationGrid(self.activations))
        return StraightThroughConstraint(self, weights, values)


class StraightThroughConstraint(Constraint):
    """The grids of a :class:`StraightThrough`."""

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"

    def __init__(
        self,
        rule: StraightThrough,
        weights: Mapping[str, WeightGrid],
        values: Mapping[str, ActivationGrid],
    ) -> None:
        super().__init__(weights, values)
        self.rule = rule

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Let the solver be asked for scales where it is time, and take in the ranges of the batch before."""
        for grid in self.parametrizations:
            if isinstance(grid, WeightGrid):
                grid.due = progress.step % self.rule.every == 0
            if isinstance(grid, ActivationGrid):
                grid.advance()
                grid.watching = progress.fraction < self.rule.freeze or not grid.known

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Take in the last batch and average the ranges over the ranks."""
        for grid in self.parametrizations:
            if isinstance(grid, ActivationGrid):
                grid.advance()
                grid.put(mean(grid.range))

    def finish(self, piece: CompressedModel) -> CompressedModel:
        """Return the workpiece with the biases of integer layers on the grid that their kernels add on."""
        return with_integer_biases(piece)
