"""Bits and zeros for each weight of a model, all solved once: the layerwise problem of the stage ``quantize``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol, Self, runtime_checkable

from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.methods.allocate.allocate import AtLevels
from attar._src.methods.allocate.candidates import Candidate
from attar._src.methods.allocate.judge import UNLABELLED, Labelled
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.sensitivity_table import ROUNDED_BITS
from attar._src.methods.allocate.tensor_meter import TensorMeter
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.search.layerwise.facts import layer_facts
from attar._src.search.layerwise.problem import LayerChoice, LayerwiseProblem
from attar._src.search.space import Point
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo, inputs_by_graph

#: Bits, and shares of zeros, that are tried for each weight.
TRIED_BITS = (2, 3, 4, 5, 6, 8)
TRIED_SPARSITIES = (0.0, 0.25, 0.5, 0.75)


@runtime_checkable
class ChoosesLevels(Protocol):
    """A stage that rounds each weight at a level of its own, as ``quantize`` does."""

    rate: float

    def chosen(self, model: CompressedModel, *, free: bool = False) -> list[str]:
        """Return the weights that it rounds; ``free``: without those whose bits are given."""

    def choice(
        self,
        model: CompressedModel,
        use: FileInfo | None,
        free: Collection[str],
        inputs: Mapping[str, CalibrationInputs],
        tried: Sequence[Level],
    ) -> Callable[[Mapping[str, Level]], CompressedModel]:
        """Return levels of the ``free`` weights, of those ``tried`` -> the model."""

    def describe(self) -> dict[str, Any]:
        """Return its record."""


@dataclass(frozen=True)
class SolvedLevels:
    """A model whose weights may each have any of several levels.

    Attributes:
        model: as it is.
        use: what files tell their user.
        at: level of each weight -> the model.
        candidates: weight -> level -> its tensors, and their coded bytes.
        problem: choices ``(bits, sparsity)`` of each weight, or ``(bits,)`` where one sparsity is tried, with these
            bytes.
        of: choice -> its level.
    """

    model: CompressedModel
    use: FileInfo
    at: AtLevels
    candidates: Mapping[str, Mapping[Level, Candidate]]
    problem: LayerwiseProblem
    of: Mapping[LayerChoice, Level]

    @classmethod
    def solve(
        cls,
        model: CompressedModel,
        stage: ChoosesLevels,
        inputs: CalibrationInputs,
        use: FileInfo,
        *,
        names: Sequence[str] | None = None,
        bits: Sequence[int] = TRIED_BITS,
        sparsities: Sequence[float] = TRIED_SPARSITIES,
        measured: CalibrationInputs | None = None,
        labelled: Labelled = UNLABELLED,
    ) -> Self:
        """Solve every weight at every level in one pass over the inputs.

        Args:
            model: to quantize.
            stage: how weights are rounded; its ``bits`` count for those that are not in ``names``.
            inputs: that calibrate.
            use: what files tell their user.
            names: of the weights to choose for; those that the stage quantizes and that are not in its ``overrides``.
            bits: from 2 to 8.
            sparsities: from 0 to below 1.
            measured: on which each weight is measured alone at each level, for samplers that read these errors; None
                to leave that out.
            labelled: what is known of the right outputs.

        Raises:
            SpecError: a level is out of range, or there is no weight.
        """
        bits, sparsities = sorted(set(bits)), sorted(set(sparsities), reverse=True)
        if not bits or not set(bits) <= {*ROUNDED_BITS}:
            raise SpecError(f"bits {bits}: give whole numbers from {ROUNDED_BITS[0]} to {ROUNDED_BITS[-1]}")
        if not sparsities or not all(0 <= each < 1 for each in sparsities):
            raise SpecError(f"sparsities {sparsities}: give shares from 0 to below 1, such as 0, 0.5")
        names = stage.chosen(model, free=True) if names is None else names
        if not names:
            raise SpecError("there is no weight to choose levels for: all are kept, or in overrides")
        pairs = {(width, share): Level(width, stage.rate, share) for width, share in product(bits, sparsities)}
        dimensions: dict[str, Sequence[float]] = {"bits": tuple(bits)}
        if len(sparsities) > 1:
            dimensions["sparsity"] = tuple(sparsities)
        levels: dict[LayerChoice, Level] = {pair[: len(dimensions)]: level for pair, level in pairs.items()}
        given = inputs_by_graph(model, inputs)
        at = stage.choice(model, use, names, given, [*levels.values()])

        def uniform(level: Level) -> CompressedModel:
            return at(dict.fromkeys(names, level))

        some = given if measured is None else inputs_by_graph(model, measured)
        meter = TensorMeter(
            model=model,
            inputs=some,
            names=names,
            levels=[*levels.values()],
            at=uniform,
            what="bits",
            method=stage.describe(),
            labelled=labelled,
            gradients=False,
        )
        found = meter.candidates
        costs = {
            name: {choice: found[name][level].bytes + found[name][level].beside for choice, level in levels.items()}
            for name in names
        }
        errors: dict[str, dict[LayerChoice, float]] | None = None
        if measured is not None:
            # An output that was not finite counts as a thousand signals.
            errors = {
                each.name: {
                    choice: 1e3 if (error := figures[level].error) is None else error
                    for choice, level in levels.items()
                }
                for each in meter.measure()
                for figures in [{own.key: own for own in each.levels}]
            }
        last = [*levels][-1]
        widest = shorten_numbers(uniform(levels[last]))
        fixed = len(pack(widest.contents(use))) - sum(own[last] for own in costs.values())
        problem = LayerwiseProblem(layer_facts(model, names), dimensions, costs, float(fixed), errors)
        return cls(model, use, at, found, problem, levels)

    def levels(self, point: Point) -> dict[str, Level]:
        """Return weight -> its level at a point of the problem's space."""
        return {name: self.of[choice] for name, choice in self.problem.chosen(point).items()}

    def packed(self, point: Point) -> bytes:
        """Return the file of a point."""
        return pack(shorten_numbers(self.at(self.levels(point))).contents(self.use))
