"""Allocate bits under a target, and hold the result against the packed file.

sensitivities --> integer program --> bits of each tensor --> stage --> packed file --> bytes, drop
                        ^                                                                  |
                        +------------------ corrected by the difference -------------------+
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import Any, Literal

from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.methods.allocate.choose import by_name, nearby_levels
from attar._src.methods.allocate.file_judge import FileJudge
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.allocate.level import FLOAT, Level
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.allocate.target import NO_FILE
from attar._src.methods.allocate.tensor_meter import TensorMeter
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo

#: Examples on which each tensor is measured alone.
MEASURED = 256
#: Files that are packed at most for one size.
ROUNDS = 6
#: A file this much below its target is near enough.
NEAR = 0.003
#: Bytes by which the record of another target may lengthen a file.
SPARE = 8
#: Halvings of the range of sizes in which a drop is sought.
HALVINGS = 7
#: The error of an output that is not finite: that of a thousand signals.
NOT_FINITE = 1e3
#: Allocations around which sensitivities are measured again for one size.
AGAIN = 3
#: Errors add up where that of all tensors together is their sum within this share.
APART = 0.1
#: Allocations near another whose files have at least this share of its bytes are tried for a drop.
SMALLER = 0.9
#: While a choice has at most this share of the error of the one before, another is worth its time.
WORTH_MORE = 0.95

#: Said where no file is small enough, and where no rate was tried.
OTHERWISE = "prune before, or let channels share scales (granularity='tensor')"
LESS_BITS = ", or take scales='gptq', whose codes take fewer bits"

#: A tensor that stays in floating point.
FLOATING = Level(FLOAT)

#: Tensor -> its level -> the model.
AtLevels = Callable[[Mapping[str, Level]], CompressedModel]


@dataclass(frozen=True)
class Attempt:
    """An allocation and its file.

    Attributes:
        levels: of each tensor.
        model: with these levels.
        predicted: bytes of the file, as the integer program knew them.
        data: the packed file.
        error: sum of the errors.
    """

    levels: Mapping[str, Level]
    model: CompressedModel
    predicted: float
    data: bytes
    error: float

    @cached_property
    def artifact(self) -> Artifact:
        """The file, opened."""
        return open_artifact(self.data)

    @property
    def graph_bytes(self) -> int:
        """Bytes of its graphs."""
        return sum(each.length for each in self.artifact.manifest.sections if each.kind == "graph")


@dataclass
class Allocator:
    """Chooses bits for the tensors of a model.

    Attributes:
        model: as it is; its outputs are the reference.
        inputs: of each graph, real ones.
        judged: likewise, those on which the whole file is compared.
        names: of the tensors to choose for.
        levels: that a tensor may have, beside floating point.
        at: level of each tensor -> the model.
        use: what the file tells its user.
        coder: of the file.
        method: record of what ``at`` does, without bits.
        labelled: what is known of the right outputs.
        table: sensitivities of the tensors at the levels, if they are known.
        seed: of the measurement.
        what: levels are, ``bits`` or ``sparsity``.
    """

    model: CompressedModel
    inputs: Mapping[str, CalibrationInputs]
    judged: Mapping[str, CalibrationInputs]
    names: Sequence[str]
    levels: Sequence[Level]
    at: AtLevels
    use: FileInfo
    coder: str
    method: Mapping[str, Any]
    labelled: Labelled
    table: SensitivityTable | None = None
    seed: int = 0
    what: Literal["bits", "sparsity"] = "bits"
    #: Bytes of the first file beside the tensors: graph, manifest, what stays as it is.
    _fixed: float | None = field(default=None, init=False)

    @cached_property
    def meter(self) -> TensorMeter:
        """Measures each tensor alone, without gradients and most levels by their layer alone."""
        some = {
            name: each.first(MEASURED, cut=self.model.graphs[name].traced.any_batch)
            for name, each in self.inputs.items()
        }

        def uniform(level: Level) -> CompressedModel:
            return self.at(dict.fromkeys(self.names, level))

        return TensorMeter(
            model=self.model,
            inputs=some,
            names=self.names,
            levels=self.levels,
            at=uniform,
            what=self.what,
            method=self.method,
            labelled=self.labelled,
            seed=self.seed,
            gradients=False,
            coder=self.coder,
            every=False,
        )

    @cached_property
    def measured(self) -> SensitivityTable:
        """The sensitivities, of a table that was given or measured now."""
        return self.table or self.meter.table(list(self.meter.measure()))

    @cached_property
    def errors(self) -> dict[str, dict[Level, float]]:
        """Tensor -> level -> its error alone."""
        layers = {layer.name: layer for layer in self.measured.layers}
        return {
            name: {each.key: NOT_FINITE if each.error is None else each.error for each in layers[name].levels}
            | {FLOATING: 0.0}
            for name in self.names
        }

    @cached_property
    def sizes(self) -> dict[str, dict[Level, float]]:
        """Tensor -> level -> its coded bytes, and those of what changes with it."""
        layers = {layer.name: layer for layer in self.measured.layers}
        return {
            name: {each.key: each.bytes + each.beside for each in layers[name].levels} | {FLOATING: layers[name].before}
            for name in self.names
        }

    def share(self, other: Allocator) -> None:
        """Take what another allocator has measured of the same tensors on the same examples."""
        vars(self).update({name: each for name, each in vars(other).items() if name in ("meter", "measured", "files")})

    def attempt(self, levels: Mapping[str, Level]) -> Attempt:
        """Make the model with these levels, and pack it."""
        model = shorten_numbers(self.at(levels))
        data = pack(model.contents(self.use), coder=self.coder)
        if self._fixed is None:
            self._fixed = len(data) - sum(self.sizes[name][level] for name, level in levels.items())
        error = sum(self.errors[name][level] for name, level in levels.items())
        return Attempt(dict(levels), model, self._expected(levels), data, error)

    def smallest(self) -> Attempt:
        """Return the attempt with the fewest bytes for each tensor."""
        return self.attempt({name: min(own, key=own.__getitem__) for name, own in self.sizes.items()})

    def within(self, most: float, least: Attempt, again: bool = True) -> Attempt:
        """Return the attempt with the least error that was found whose file has at most ``most`` bytes.

        Args:
            most: bytes.
            least: the smallest attempt.
            again: whether sensitivities are measured again around an allocation where they do not add up.

        Raises:
            SpecError: no file is so small; the message has the nearest that is.
        """
        tried = [least.levels]
        fitting = [least] if len(least.data) <= most else []
        fitting += self._fitting(self.errors, most, tried)
        fitting += self._uniform(most, tried)
        if not fitting:
            extreme = "fewest bits" if self.what == "bits" else "highest sparsity"
            nearest = f"max_bytes={len(least.data) + SPARE}, or size={self.bits_per_weight(least) + 0.01:.2f}"
            raise SpecError(
                f"{NO_FILE} {most:,.0f} bytes: with the {extreme} for every tensor it has {len(least.data):,}, of "
                f"which {least.graph_bytes:,} are the graph. The nearest target is {nearest}; or "
                + (OTHERWISE if self.what == "bits" else "quantize afterwards, without a target here")
                + ("" if self.what != "bits" or any(each.rate for each in self.levels) else LESS_BITS)
            )
        # Errors of tensors do not add up where they are large, so the last word is that of the whole file.
        best, error = self._best(fitting)
        for _ in range(AGAIN if again and not self._adds_up(best) else 0):
            found = self._fitting(self._around(best.levels), most, tried, self._excess(best))
            better, less = self._best(found) if found else (best, error)
            if less < error:
                best = better
            if less > WORTH_MORE * error:
                break
            error = less
        return best

    def _best(self, found: Sequence[Attempt]) -> tuple[Attempt, float]:
        """Return the attempt whose file has the least error, and this error."""
        errors = [self.files.error(each.artifact) for each in found]
        place = min(range(len(found)), key=errors.__getitem__)
        return found[place], errors[place]

    def _adds_up(self, attempt: Attempt) -> bool:
        """Return whether the errors of its tensors add up to that of all together."""
        return abs(self.meter.together(attempt.levels) - attempt.error) <= APART * attempt.error

    def _expected(self, levels: Mapping[str, Level]) -> float:
        """Return the bytes of the file with these levels as they are predicted before any correction."""
        assert self._fixed is not None
        return self._fixed + sum(self.sizes[name][level] for name, level in levels.items())

    def _excess(self, attempt: Attempt) -> float:
        """Return the bytes of the file beyond those."""
        return len(attempt.data) - self._expected(attempt.levels)

    def _fitting(
        self,
        errors: Mapping[str, Mapping[Level, float]],
        most: float,
        tried: list[Mapping[str, Level]],
        correction: float = 0.0,
    ) -> list[Attempt]:
        """Return the attempts with the least sum of errors whose files have at most ``most`` bytes.

        Args:
            errors: tensor -> the levels to choose from, with their errors.
            most: bytes.
            tried: levels that are known; those of attempts are added.
            correction: what a file takes beside what is predicted, as the last attempt had it.
        """
        fitting = []
        for _ in range(ROUNDS):
            assert self._fixed is not None
            levels = by_name(errors, self.sizes, most - self._fixed - correction)
            if levels is None or levels in tried:
                break
            tried.append(levels)
            found = self.attempt(levels)
            if len(found.data) <= most:
                fitting.append(replace(found, predicted=found.predicted + correction))
                if len(found.data) >= (1 - NEAR) * most:
                    break
            correction = self._excess(found)
        return fitting

    def _around(self, chosen: Mapping[str, Level]) -> dict[str, dict[Level, float]]:
        """Return tensor -> level near its chosen one -> the error with all other tensors at their chosen levels.

        Errors are above the least of each tensor, so that none is negative.
        """
        near = {name: nearby_levels(self.errors[name], self.sizes[name], level) for name, level in chosen.items()}
        found = {}
        for name, own in self.meter.around(chosen, near).items():
            errors = {level: error if isfinite(error) else NOT_FINITE for level, error in own.items()}
            found[name] = {level: error - min(errors.values()) for level, error in errors.items()}
        return found

    @cached_property
    def files(self) -> FileJudge:
        """Compares files with the model on the examples to compare."""
        judges = replace(self.meter, inputs=self.judged).judges
        return FileJudge(judges, self.judged, {graph: bool(each.targets) for graph, each in self.inputs.items()})

    def _uniform(self, most: float, tried: Sequence[Mapping[str, Level]]) -> list[Attempt]:
        """Return the attempt with most bits, one level for all tensors, that fits, unless it was tried."""
        sizes = {level: self._expected(dict.fromkeys(self.names, level)) for level in self.levels}
        fitting = [level for level in self.levels if sizes[level] <= (1 + 3 * NEAR) * most]
        levels = dict.fromkeys(self.names, max(fitting, key=sizes.__getitem__, default=FLOATING))
        found = [self.attempt(levels)] if fitting and levels not in tried else []
        return [each for each in found if len(each.data) <= most]

    def bits_per_weight(self, attempt: Attempt) -> float:
        """Return ``8 (file bytes - graph bytes) / parameters``."""
        parameters = max(attempt.artifact.manifest.parameters or 0, 1)
        return 8 * (len(attempt.data) - attempt.graph_bytes) / parameters

    def dropped(self, most: float, least: Attempt) -> Attempt:
        """Return the smallest attempt that was found whose decoded file drops by ``most`` points at most.

        Raises:
            SpecError: the file drops by more even with every weight in floating point.
        """
        if self.files.drop(least.artifact)[0] <= most:
            return least
        low, high = len(least.data), len(least.data) + sum(max(own.values()) for own in self.sizes.values())
        best = self.attempt(dict.fromkeys(self.names, FLOATING))
        if self.files.drop(best.artifact)[0] > most:
            raise SpecError(self.files.refused(best.artifact, most))
        for _ in range(HALVINGS):
            # Sizes differ by factors.
            middle = (low * high) ** 0.5
            found = self.within(middle, least, again=False)
            if self.files.drop(found.artifact)[0] <= most:
                high = min(len(found.data), middle)
                if len(found.data) < len(best.data):
                    best = found
            else:
                low = middle
        return best if self._adds_up(best) else self._smaller(best, most)

    def _smaller(self, best: Attempt, most: float) -> Attempt:
        """Return a smaller attempt near this one that drops by ``most`` points at most, as far as one is found."""
        errors, excess, tried = self._around(best.levels), self._excess(best), list[Mapping[str, Level]]()
        low, high = SMALLER * len(best.data), float(len(best.data))
        for _ in range(HALVINGS // 2):
            middle = (low * high) ** 0.5
            found = self._fitting(errors, middle, tried, excess)
            if found and self.files.drop((smaller := self._best(found)[0]).artifact)[0] <= most:
                best, high = smaller, middle
            else:
                low = middle
        return best
