"""Bits and zeros for each weight of a model, all solved once: the layerwise problem of the stage ``quantize``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.methods.allocate.allocate import AtLevels
from attar._src.methods.allocate.candidates import Candidate
from attar._src.methods.allocate.judge import UNLABELLED, Labelled
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.measure import SensitivityMeter
from attar._src.methods.allocate.sensitivity_table import ROUNDED_BITS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.search.layerwise.facts import layer_facts
from attar._src.search.layerwise.problem import Choice, LayerwiseProblem
from attar._src.search.space import Point
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo, inputs_by_graph

#: Bits, and shares of zeros, that are tried for each weight.
BITS = (2, 3, 4, 5, 6, 8)
SPARSITIES = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class SolvedLevels:
    """A model whose weights may each have any of several levels.

    Attributes:
        model: as it is.
        use: what files tell their user.
        at: level of each weight -> the model.
        candidates: weight -> level -> its tensors, and their coded bytes.
        problem: choices ``(bits, sparsity)`` of each weight, with these bytes.
    """

    model: CompressedModel
    use: FileInfo
    at: AtLevels
    candidates: Mapping[str, Mapping[Level, Candidate]]
    problem: LayerwiseProblem

    @classmethod
    def solve(
        cls,
        model: CompressedModel,
        stage: PostTrainingQuantize,
        inputs: CalibrationInputs,
        use: FileInfo,
        *,
        bits: Sequence[int] = BITS,
        sparsities: Sequence[float] = SPARSITIES,
        measured: CalibrationInputs | None = None,
        labelled: Labelled = UNLABELLED,
    ) -> Self:
        """Solve every weight at every level in one pass over the inputs.

        Args:
            model: to quantize.
            stage: how weights are rounded; its ``bits`` do not count.
            inputs: that calibrate.
            use: what files tell their user.
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
        names = stage.chosen(model, free=True)
        if not names:
            raise SpecError("there is no weight to choose levels for: all are kept, or in overrides")
        levels = {(width, share): Level(width, sparsity=share) for width, share in product(bits, sparsities)}
        given = inputs_by_graph(model, inputs)
        at = stage.choice(model, use, names, given, [*levels.values()])

        def uniform(level: Level) -> CompressedModel:
            return at(dict.fromkeys(names, level))

        some = given if measured is None else inputs_by_graph(model, measured)
        meter = SensitivityMeter(
            model, some, names, [*levels.values()], uniform, "bits", stage.describe(), labelled, gradients=False
        )
        found = meter.candidates
        costs = {
            name: {choice: found[name][level].bytes + found[name][level].beside for choice, level in levels.items()}
            for name in names
        }
        errors: dict[str, dict[Choice, float]] | None = None
        if measured is not None:
            # An output that was not finite counts as a thousand signals.
            errors = {
                each.name: {
                    choice: 1e3 if (error := each.at(*level).error) is None else error
                    for choice, level in levels.items()
                }
                for each in meter.measure()
            }
        widest = shorten_numbers(uniform(levels[bits[-1], sparsities[-1]]))
        fixed = len(pack(widest.contents(use))) - sum(own[bits[-1], sparsities[-1]] for own in costs.values())
        dimensions = {"bits": tuple(bits), "sparsity": tuple(sparsities)}
        problem = LayerwiseProblem(layer_facts(model, names), dimensions, costs, float(fixed), errors)
        return cls(model, use, at, found, problem)

    def levels(self, point: Point) -> dict[str, Level]:
        """Return weight -> its level at a point of the problem's space."""
        return {name: Level(bits, sparsity=share) for name, (bits, share) in self.problem.chosen(point).items()}

    def packed(self, point: Point) -> bytes:
        """Return the file of a point."""
        return pack(shorten_numbers(self.at(self.levels(point))).contents(self.use))
