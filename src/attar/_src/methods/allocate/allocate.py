"""Allocate bits under a target, and hold the result against the packed file.

sensitivities --> integer program --> bits of each tensor --> stage --> packed file --> bytes, drop
                        ^                                                                  |
                        +------------------ corrected by the difference -------------------+
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal

from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.methods.allocate.choose import by_name
from attar._src.methods.allocate.held import HeldTarget
from attar._src.methods.allocate.judge import Judge, Labelled, OutputError, session_outputs
from attar._src.methods.allocate.level import FLOAT, Level
from attar._src.methods.allocate.measure import TensorMeter
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.allocate.target import NO_FILE, BitTarget
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.runtime.session import Session
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

#: Examples under which a drop is a rough measure: one of them is half a point.
FEW_JUDGED = 200

#: Said where no file is small enough and no rate was tried.
SMALLER = "; or take scales='gptq', whose codes take fewer bits"

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
            every=False,
        )

    @cached_property
    def measured(self) -> SensitivityTable:
        """The sensitivities, of a table that was given or measured now."""
        return self.table or self.meter.table(list(self.meter.measure()))

    @cached_property
    def errors(self) -> dict[str, dict[Level, float]]:
        """Tensor -> level -> its error alone; an output that was not finite counts as a thousand signals."""
        layers = {layer.name: layer for layer in self.measured.layers}
        return {
            name: {each.key: 1e3 if each.error is None else each.error for each in layers[name].levels}
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

    def attempt(self, levels: Mapping[str, Level]) -> Attempt:
        """Make the model with these levels, and pack it."""
        model = shorten_numbers(self.at(levels))
        data = pack(model.contents(self.use), coder=self.coder)
        sizes = sum(self.sizes[name][level] for name, level in levels.items())
        if self._fixed is None:
            self._fixed = len(data) - sizes
        error = sum(self.errors[name][level] for name, level in levels.items())
        return Attempt(dict(levels), model, self._fixed + sizes, data, error)

    def smallest(self) -> Attempt:
        """Return the attempt with the fewest bytes for each tensor."""
        return self.attempt({name: min(own, key=own.__getitem__) for name, own in self.sizes.items()})

    def within(self, most: float, least: Attempt) -> Attempt:
        """Return the attempt with the least error that was found whose file has at most ``most`` bytes.

        Args:
            most: bytes.
            least: the smallest attempt.

        Raises:
            SpecError: no file is so small; the message has the nearest that is.
        """
        fitting = [least] if len(least.data) <= most else []
        # What the file took beside what was predicted, of the last attempt.
        correction, tried = 0.0, [least.levels]
        for _ in range(ROUNDS):
            assert self._fixed is not None
            room = most - self._fixed - correction
            levels = by_name(self.errors, self.sizes, room)
            if levels is None or levels in tried:
                break
            tried.append(levels)
            found = self.attempt(levels)
            if len(found.data) <= most:
                fitting.append(replace(found, predicted=found.predicted + correction))
                if len(found.data) >= (1 - NEAR) * most:
                    break
            correction = len(found.data) - found.predicted
        fitting += self._uniform(most, tried)
        if not fitting:
            extreme = "fewest bits" if self.what == "bits" else "highest sparsity"
            nearest = f"max_bytes={len(least.data) + SPARE}, or size={self.bits_per_weight(least) + 0.01:.2f}"
            raise SpecError(
                f"{NO_FILE} {most:,.0f} bytes: with the {extreme} for every tensor it has {len(least.data):,}, of "
                f"which {least.graph_bytes:,} are the graph. The nearest target is {nearest}; or "
                + ("prune before" if self.what == "bits" else "quantize afterwards, without a target here")
                + ("" if self.what != "bits" or any(each.rate for each in self.levels) else SMALLER)
            )
        # Errors of tensors do not add up where they are large, so the last word is that of the whole file.
        return min(fitting, key=lambda each: sum(seen.error for seen in self.compared(each.artifact).values()))

    def _uniform(self, most: float, tried: Sequence[Mapping[str, Level]]) -> list[Attempt]:
        """Return the attempt with most bits, one level for all tensors, that fits, unless it was tried."""
        assert self._fixed is not None
        sizes = {level: self._fixed + sum(own[level] for own in self.sizes.values()) for level in self.levels}
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
        if self.drop(least.artifact)[0] <= most:
            return least
        low, high = len(least.data), len(least.data) + sum(max(own.values()) for own in self.sizes.values())
        best = self.attempt(dict.fromkeys(self.names, FLOATING))
        loss, unit = self.drop(best.artifact)
        if loss > most:
            raise SpecError(
                f"no file drops by {most:g} {unit} at most: with every weight in floating point it drops by "
                f"{loss:.3g}. The nearest target is max_drop={loss * 1.01:.3g}; or leave activations in floating point"
            )
        for _ in range(HALVINGS):
            # Sizes differ by factors.
            middle = (low * high) ** 0.5
            found = self.within(middle, least)
            if self.drop(found.artifact)[0] <= most:
                high = min(len(found.data), middle)
                if len(found.data) < len(best.data):
                    best = found
            else:
                low = middle
        return best

    def drop(self, artifact: Artifact) -> tuple[float, str]:
        """Return what the decoded file loses, in the points of ``max_drop`` and their unit, the most of all graphs."""
        lost = {graph: self.judges[graph].points(seen) for graph, seen in self.compared(artifact).items()}
        graph = max(lost, key=lost.__getitem__)
        return lost[graph], self.judges[graph].unit

    def dropped_by(self, packed: bytes, most: float) -> str:
        """Return by how much too much a packed file drops, in words; empty if by at most ``most`` points."""
        drop, unit = self.drop(open_artifact(packed))
        return f"the file drops by {drop:.3g} {unit}, and at most {most:g} were asked for" if drop > most else ""

    def doubts(self) -> list[str]:
        """Return warnings of a drop that is measured on few examples, or without the labels that there are."""
        found = []
        for graph, judge in self.judges.items():
            examples, counts = self.judged[graph].examples, f"a drop counts {judge.unit}"
            if judge.unjudged:
                found.append(f"{counts}, as the labels give no metric: {judge.unjudged}")
            elif self.inputs[graph].targets and not self.judged[graph].targets:
                found.append(f"{counts}: the examples of data have labels, those of validation none; give them, too")
            if examples < FEW_JUDGED:
                found.append(f"{counts} on {examples} examples, a rough measure; validate on {FEW_JUDGED} or more")
        return found

    def compared(self, artifact: Artifact) -> dict[str, OutputError]:
        """Run the decoded file, and compare the outputs of each graph with the reference."""
        found = {}
        for graph, judge in self.judges.items():
            session = Session(artifact, graph=graph)
            found[graph] = judge.judge(session_outputs(session, self.judged[graph].batches))
        return found

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """Graph -> the judge of its main output on the examples to compare."""
        return replace(self.meter, inputs=self.judged).judges


def allocate(allocator: Allocator, target: BitTarget) -> CompressedModel:
    """Return the model with bits that meet the target in its packed file, and a note on them.

    Raises:
        SpecError: no bits meet the target; the message has the nearest that do.
    """
    if not allocator.names:
        raise SpecError("there is no weight to choose bits for: all are kept, or in overrides")
    least = allocator.smallest()
    said, loss, most, doubts = "", _no_loss, target.max_bytes, list[str]()
    if target.max_drop is not None:
        found = allocator.dropped(target.max_drop, least)
        most = len(found.data)
        examples = sum(each.examples for each in allocator.judged.values())
        loss = partial(allocator.dropped_by, most=target.max_drop)
        other = "other " if any(each is not allocator.inputs[name] for name, each in allocator.judged.items()) else ""
        drop, unit = allocator.drop(found.artifact)
        doubts = allocator.doubts()
        said = f", a drop of {drop:.3g} {unit} on {examples} {other}examples"
    else:
        if most is None:
            assert target.size is not None
            most = int(target.size * (least.artifact.manifest.parameters or 0) / 8) + least.graph_bytes
        found = allocator.within(most, least)
    words = ", ".join(f"{name} {level}" for name, level in found.levels.items())
    note = (
        f"{words}; {found.predicted:,.0f} bytes were predicted, {len(found.data):,} came: "
        f"{allocator.bits_per_weight(found):.4g} bits per weight{said}"
    )
    held = HeldTarget(most, allocator.use, allocator.coder, loss)
    warnings = tuple(dict.fromkeys((*found.model.warnings, *doubts)))
    return replace(found.model, notes={**found.model.notes, "bits": note}, target=held, warnings=warnings)


def _no_loss(_: bytes) -> str:
    return ""
