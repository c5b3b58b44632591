"""``attar.compress``: say what a file may lose or take, get the files that hold it.

goal --> step --> quantize --> verified file --> bytes, drop, milliseconds --+
          ^                                                                  |
          +------------------------------------------------------------------+--> front, best.attar, page
"""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Preprocessing
from attar._src.core.digest import digest
from attar._src.core.errors import AttarError, AttarWarning, DataError, ModelError, SpecError
from attar._src.core.fields import main_output_name
from attar._src.core.interrupt import interruptible
from attar._src.core.spec import build_spec
from attar._src.data.axes import Dynamic
from attar._src.deploy.dry_run import check_deployable, example_of
from attar._src.deploy.fidelity import labelled_examples
from attar._src.deploy.first_run import prepare
from attar._src.deploy.validation_inputs import validation_inputs
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.methods.allocate.judge import Judge, Labelled
from attar._src.methods.allocate.measure import tensors_digest
from attar._src.model.dependencies.record import recorded_removals
from attar._src.model.trace import trace
from attar._src.report.wording import clock
from attar._src.search.goal import Aim, Goal
from attar._src.search.plan import UNTOUCHED, SearchStep, next_step
from attar._src.search.post_training import PostTraining
from attar._src.search.recommended import recommended
from attar._src.search.search_folder import FILES, SearchFolder
from attar._src.search.step_times import StepTimes
from attar._src.search.tried_file import TriedFile, pareto
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context

#: One of so many examples is held out where there is no ``validation``.
HELD_OUT = 4


@dataclass(frozen=True)
class CompressionResult:
    """What a search found.

    Attributes:
        folder: with the files, ``best.attar``, ``search.json`` and ``search.html``.
        goal: of the search.
        files: all that were made, in order.
        best: the recommended one; where none holds the goal, the nearest.
        met: whether it holds the goal.
        ended: why the search ended.
        failed: name of a step -> why it made no file.
        skipped: steps for which there was no time.
    """

    folder: Path
    goal: Goal
    files: Sequence[TriedFile]
    best: TriedFile
    met: bool
    ended: str
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: Sequence[str] = ()

    @property
    def front(self) -> list[TriedFile]:
        """The files that no other one beats in bytes, drop and time, the largest first."""
        return pareto(self.files)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return {
            "goal": self.goal.describe(),
            "words": self.goal.words(),
            "met": self.met,
            "best": self.best.name,
            "front": [each.name for each in self.front],
            "ended": self.ended,
            "files": [each.model_dump(mode="json") for each in self.files],
            "failed": dict(self.failed),
            "skipped": list(self.skipped),
        }


def compress(
    module: Any,
    data: Any,
    folder: str | Path,
    *,
    max_drop: float | None = None,
    max_bytes: int | None = None,
    max_ms: float | None = None,
    minimise: Aim | None = None,
    minutes: float | None = None,
    resume: bool = False,
    validation: Any = None,
    labels: Any = None,
    keep: Sequence[str] = (),
    examples: int = 512,
    batch: int = 64,
    collate: Callable[[list[Any]], Any] | None = None,
    dynamic: Dynamic = None,
    preprocessing: Preprocessing | None = None,
    task: str | None = None,
    class_names: Sequence[str] = (),
    metric: str | None = None,
    ignore_index: int = IGNORE_INDEX,
    class_axis: int | None = None,
    licence: str | None = None,
    limits: Limits | None = None,
    on_step: Callable[[str], None] | None = None,
) -> CompressionResult:
    """Find the files of a trained module that hold a goal, without training it.

    Cheap files come first: floating point, 8 bits with activations in floating point, dynamic and static, 4 bits. Then
    each layer gets bits of its own, at sizes towards the goal, and reconstruction below the smallest size that holds.
    Every file is packed, decoded, compared, judged on validation examples and timed beside the floating-point file;
    one is recommended for its time only if three of four rounds were faster.

    Args:
        module: as :func:`attar.quantize` takes it; so are ``data``, ``labels``, ``examples``, ``batch``, ``collate``,
            ``dynamic``, ``preprocessing``, ``task``, ``class_names``, ``metric``, ``ignore_index``, ``class_axis``,
            ``licence`` and ``limits``.
        data: real inputs for calibration.
        folder: for the files and what was measured.
        max_drop: points that a file may lose on ``validation``: of the metric where there are labels, else of
            predictions that change, else the relative error in per cent.
        max_bytes: bytes that a file may have.
        max_ms: milliseconds that one example may take on one thread of this machine.
        minimise: ``bytes``, ``ms`` or ``drop``: what to make small within these bounds; by default the first of drop,
            bytes and ms that has no bound.
        minutes: time for the search, from the call on; None for as long as it pays. What would not end in time is left
            out.
        resume: go on with the search in ``folder``.
        validation: examples that judge, in a form that ``data`` may have, labels included; by default one of four
            examples of ``data``, which then do not calibrate. Never those of the test that is reported.
        keep: globs of layers that stay in floating point.
        on_step: called with a line on each step.

    Returns:
        The files, the front, and the best one; if none holds the goal, the nearest.

    Raises:
        DataError, ModelError, SpecError, UnknownName: as :func:`attar.quantize`.

    Example:
        >>> import attar, tempfile, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> found = attar.compress(net, torch.randn(64, 8), tempfile.mkdtemp(), max_drop=10)
        >>> found.met
        True
    """
    started = time.monotonic()
    goal: Goal = build_spec(
        Goal, where="compress", max_drop=max_drop, max_bytes=max_bytes, max_ms=max_ms, minimise=minimise
    )
    if minutes is not None and not minutes > 0:
        raise SpecError(f"minutes={minutes:g}: give a time above 0, or none for as long as it pays")
    kept = SearchFolder(Path(folder), resume=resume)
    module, inputs, _ = prepare(module, data, examples=examples, batch=batch, collate=collate, dynamic=dynamic)
    use = FileInfo(preprocessing, task, tuple(class_names), metric, licence)
    example, axes, inputs = example_of(inputs, dynamic)
    compared = labelled_examples(inputs, labels, metric, ClassLayout(class_axis, ignore_index))
    traced = trace(module, example, names=inputs.names, dynamic=axes)
    if validation is None:
        learn, held = compared.with_targets().one_of(HELD_OUT, whole=not traced.any_batch)
        if learn is held:
            several = "examples" if traced.any_batch else f"batches of {inputs.count(inputs.batches[0])}"
            raise DataError(
                f"compress judges files on held-out inputs; give {HELD_OUT} {several} or more, or validation="
            )
        inputs, compared = replace(learn, targets=()), replace(compared, inputs=learn, targets=learn.targets)
    else:
        held = validation_inputs(module, validation, example, axes, batch=batch, collate=collate, dynamic=dynamic)
    dry_run = check_deployable(module, traced, use, inputs, limits=limits)
    untouched = CompressedModel.of(traced, record=recorded_removals(module))
    output = main_output_name({port.name: port.dtype.startswith("f") for port in traced.outputs})
    judge = Judge.of(
        traced.graph,
        held,
        output,
        Labelled(compared.metric, compared.layout, compared.given, task, bool(use.class_names)),
    )
    context = Context(compared.with_targets(), use=use)
    maker = PostTraining(untouched, context, inputs, dry_run, compared, held, judge, limits, tuple(keep))
    facts = {
        "goal": goal.describe(),
        "module": digest((tensors_digest(untouched), str(traced.graph.graph))),
        "keep": list(keep),
        "data": _digest(compared.with_targets()),
        "validation": _digest(held),
        "file information": digest([repr((use, compared.layout))]),
    }
    search = _Search(kept, goal, maker, None if minutes is None else 60 * minutes, started, on_step or _quiet)
    return search.run(facts)


def _digest(inputs: CalibrationInputs) -> str:
    return digest(part for batch in (*inputs.batches, inputs.targets) for part in batch)


def _quiet(_: str) -> None:
    pass


@dataclass
class _Search:
    """Takes steps until nothing pays or there is no time."""

    folder: SearchFolder
    goal: Goal
    maker: PostTraining
    seconds: float | None
    started: float
    say: Callable[[str], None]
    files: list[TriedFile] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    before: float = 0.0
    times: StepTimes = field(default_factory=StepTimes)

    def run(self, facts: Mapping[str, Any]) -> CompressionResult:
        self.files, self.failed, self.before = self.folder.begin(facts)
        self.times = StepTimes.of(self.files)
        ended = "nothing that was left to try would have paid"
        try:
            with interruptible():
                while step := next_step(self.goal, self.files, self.failed, self.skipped):
                    if step.name != UNTOUCHED and not self._fits(step):
                        self.skipped.append(step.name)
                        ended = "the time was up for what was left to try"
                        continue
                    self._take(step)
        except KeyboardInterrupt:
            if self.files:
                self.folder.finish(self._result("interrupted; go on with resume").as_dict())
            raise
        result = self._result(ended)
        self.folder.finish(result.as_dict())
        return result

    def _take(self, step: SearchStep) -> None:
        begun, solved = time.monotonic(), self.maker.solved(step.options)
        try:
            file = self._made(step, begun)
        except AttarError as error:
            if step.name == UNTOUCHED:
                # All others are compared with it, and have what fails here, too: names, limits, the user's metric.
                raise
            seconds = time.monotonic() - begun
            self.failed[step.name] = str(error)
            self.folder.fail(step.name, str(error), seconds)
            self.say(f"{step.name}: {error}")
        else:
            seconds = file.seconds
            # The first of all tables, also where it was lost and made again.
            self.files.insert(0 if step.name == UNTOUCHED else len(self.files), file)
            self.folder.add(file)
            self._tell(file)
        self.times.add("levels" if step.cost == "size" and not solved else step.cost, seconds)

    def _made(self, step: SearchStep, begun: float) -> TriedFile:
        path = self.folder.path / FILES / f"{re.sub(r'[^0-9a-z]+', '-', step.name.lower())}.attar"
        with warnings.catch_warnings():
            # They are in the report beside the file.
            warnings.simplefilter("ignore", AttarWarning)
            report = self.maker.make(step.options).save(path)
        drop, unit, found = self.maker.drop(path)
        if not math.isfinite(drop):
            raise ModelError("its outputs are not finite on validation examples")
        floating = next((self.folder.path / each.file for each in self.files if each.name == UNTOUCHED), path)
        times = self.maker.times([path, floating])
        low, ratio, high = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75]).round(4).tolist()
        return TriedFile(
            name=step.name,
            options=self.maker.every_option(step.options),
            file=path.relative_to(self.folder.path).as_posix(),
            sha256=report["sha256"],
            file_bytes=report["file_bytes"],
            drop=round(drop, 6),
            unit=unit,
            metric=found,
            ms=round(float(np.median(times[:, 0])), 5),
            against_floating=(low, ratio, high),
            seconds=round(time.monotonic() - begun, 3),
        )

    def _tell(self, file: TriedFile) -> None:
        best = self._best()
        left = "" if self.seconds is None else f", {clock(self.seconds - self._spent())} left"
        self.say(
            f"{file.name}: {file.file_bytes:,} bytes, {file.drop:.3g} {file.unit} lost, {file.ms:.3g} ms; best so far "
            f"{best.name}{'' if self.goal.holds(best) else ', which does not hold'}{left}"
        )

    def _spent(self) -> float:
        return self.before + time.monotonic() - self.started

    def _fits(self, step: SearchStep) -> bool:
        expected = self.times.expected(step.cost, solved=self.maker.solved(step.options))
        return self.seconds is None or self._spent() + expected <= self.seconds

    def _best(self) -> TriedFile:
        return recommended(self.goal, self.files)

    def _result(self, ended: str) -> CompressionResult:
        best = self._best()
        return CompressionResult(
            self.folder.path,
            self.goal,
            tuple(self.files),
            best,
            self.goal.holds(best),
            ended,
            dict(self.failed),
            tuple(self.skipped),
        )
