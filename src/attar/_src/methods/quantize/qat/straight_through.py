"""The rule that trains with rounded weights and activations: fake quantization with a straight-through estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.spec import Spec
from attar._src.methods.overrides import select_weights
from attar._src.methods.quantize.granularity import GranularityChoice
from attar._src.methods.quantize.integer_bias import with_integer_biases
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.qat.activation_grid import ActivationGrid
from attar._src.methods.quantize.qat.weight_grid import WeightGrid
from attar._src.methods.quantize.unquantized import unquantized_values
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.constraint import Constraint, Progress, Rule
from attar._src.work.learner import Learner

Bits = Annotated[int, Field(ge=2, le=8)]


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

    bits: Bits = 4
    activations: Bits | None = None
    granularity: GranularityChoice = None
    scales: str = "absmax"
    every: Annotated[int, Field(ge=1)] = 50
    keep: tuple[str, ...] = ()
    overrides: dict[str, Bits] = {}
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
        left = self._left(learner, bits)
        if self.activations is not None:
            places = learner.places(bits)
            for place in places:
                values |= dict.fromkeys(place.sources, ActivationGrid(self.activations))
            kept = {reader for name, w in learner.weights.items() if name not in bits for reader in w.readers}
            placed = {name for place in places for name in place.site.sources}
            left |= unquantized_values(learner.traced.graph, placed, skip=lambda node: node.name in kept)
        return StraightThroughConstraint(self, weights, values, left)

    def _left(self, learner: Learner, bits: Mapping[str, int]) -> dict[str, str]:
        """Return the parameters of two and more dimensions this rule leaves as they are -> the reason."""
        # Tied parameters are one tensor of several names, and the graph may know it by another than the module's first.
        weights = {id(learner.tensor(name)): name for name in learner.weights}
        tensors = {id(p): weights.get(id(p), n) for n, p in learner.module.named_parameters() if p.dim() >= 2}
        return {
            name: "kept by request" if name in learner.weights else "not recognised as a weight"
            for name in tensors.values()
            if name not in bits
        }


class StraightThroughConstraint(Constraint):
    """The grids of a :class:`StraightThrough`."""

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"

    def __init__(
        self,
        rule: StraightThrough,
        weights: Mapping[str, WeightGrid],
        values: Mapping[str, ActivationGrid],
        left: Mapping[str, str],
    ) -> None:
        super().__init__(weights, values, left)
        self.rule = rule

    def update(self, progress: Progress, weights: Mapping[str, torch.Tensor]) -> None:
        """Let the solver be asked for scales where it is time, and take in the ranges of the batch before."""
        for held in self.held:
            if isinstance(held, WeightGrid):
                held.due = progress.step % self.rule.every == 0
            if isinstance(held, ActivationGrid):
                held.advance()
                held.watching = progress.fraction < self.rule.freeze or not held.known

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Take in the last batch and average the ranges over the ranks."""
        for held in self.held:
            if isinstance(held, ActivationGrid):
                held.advance()
                held.put(mean(held.range))

    def finish(self, piece: CompressedModel) -> CompressedModel:
        """Return the workpiece with the biases of integer layers on the grid that their kernels add on."""
        return with_integer_biases(piece)
