"""``attar.compress``: say what a file may lose or take, get the files that hold it.

goal --> step --> quantize --> verified file --> bytes, drop, milliseconds --+
          ^                                                                  |
          +------------------------------------------------------------------+--> front, best.attar, page
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import AttarWarning, DataError, SpecError
from attar._src.core.fields import main_output_name
from attar._src.core.interrupt import interruptible
from attar._src.core.spec import build_spec
from attar._src.data.axes import Dynamic
from attar._src.deploy.dry_run import check_deployable, example_of
from attar._src.deploy.fidelity import labelled_examples
from attar._src.deploy.first_run import prepare
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.methods.allocate.judge import Judge, Labelled
from attar._src.methods.allocate.measure import tensors_digest
from attar._src.model.dependencies.record import recorded_removals
from attar._src.model.trace import trace
from attar._src.search.goal import Aim, Goal
from attar._src.search.plan import UNTOUCHED, Cost, SearchStep, next_step
from attar._src.search.post_training import PostTraining
from attar._src.search.search_folder import FILES, SearchFolder
from attar._src.search.tried_file import TriedFile, pareto
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context

#: One of so many examples is held out where there is no ``validation``.
HELD_OUT = 4
#: What a kind of work takes, in times of rounding, before one was timed.
_FIRST: Mapping[Cost, float] = {"round": 1.0, "see": 4.0, "levels": 30.0, "size": 8.0, "train": 30.0}
#: Times that what was timed may take the next time.
_SPARE = 1.2


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
        minimise: ``bytes``, ``ms`` or ``drop``: what to make small within these bounds; by default the first of bytes,
            drop and ms that has no bound.
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
            raise DataError(
                f"compress judges files on held-out inputs; give {HELD_OUT} examples or more, or validation="
            )
        inputs, compared = replace(learn, targets=()), replace(compared, inputs=learn, targets=learn.targets)
    else:
        _, read, _ = prepare(module, validation, examples=sys.maxsize, batch=batch, collate=collate, dynamic=dynamic)
        held = example_of(read, dynamic)[2]
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
        "module": tensors_digest(untouched),
        "keep": list(keep),
        "calibration_examples": inputs.examples,
        "validation_examples": held.examples,
    }
    search = _Search(kept, goal, maker, None if minutes is None else 60 * minutes, started, on_step or _quiet)
    return search.run(facts)


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
    skipped: dict[str, str] = field(default_factory=dict)
    before: float = 0.0
    _costs: dict[Cost, float] = field(default_factory=dict)

    def run(self, facts: Mapping[str, Any]) -> CompressionResult:
        self.files, self.failed, self.before = self.folder.begin(facts)
        ended = "nothing that was left to try would have paid"
        try:
            with interruptible():
                while step := next_step(self.goal, self.files, self.failed | self.skipped):
                    if self.files and not self._fits(step):
                        self.skipped[step.name] = "no time"
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
        begun, cost = time.monotonic(), self._cost(step)
        path = self.folder.path / FILES / f"{re.sub(r'[^0-9a-z]+', '-', step.name.lower())}.attar"
        try:
            with warnings.catch_warnings():
                # They are in the report beside the file.
                warnings.simplefilter("ignore", AttarWarning)
                report = self.maker.make(step.options).save(path)
        except SpecError as error:
            seconds = time.monotonic() - begun
            self.failed[step.name] = str(error)
            self.folder.fail(step.name, str(error), seconds)
            self.say(f"{step.name}: {error}")
            return
        drop, unit, found = self.maker.drop(path)
        floating = next((self.folder.path / each.file for each in self.files if each.name == UNTOUCHED), path)
        times = self.maker.times([path, floating])
        low, ratio, high = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75]).round(4).tolist()
        file = TriedFile(
            name=step.name,
            options=dict(step.options),
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
        self.files.append(file)
        self.folder.add(file)
        self._costs[cost] = max(self._costs.get(cost, 0.0), file.seconds)
        best = self._best()
        left = "" if self.seconds is None else f", {_clock(self.seconds - self._spent())} left"
        self.say(
            f"{file.name}: {file.file_bytes:,} bytes, {file.drop:.3g} {unit} lost, {file.ms:.3g} ms; best so far "
            f"{best.name}{'' if self.goal.holds(best) else ', which does not hold'}{left}"
        )

    def _spent(self) -> float:
        return self.before + time.monotonic() - self.started

    def _cost(self, step: SearchStep) -> Cost:
        """Return the kind of work; the first size of an activation form solves all levels."""
        if "max_bytes" not in step.options:
            return step.cost
        form = step.options.get("activations")
        known = any("max_bytes" in each.options and each.options.get("activations") == form for each in self.files)
        return step.cost if known else "levels"

    def _fits(self, step: SearchStep) -> bool:
        if self.seconds is None:
            return True
        cost = self._cost(step)
        unit = self._costs.get("round") or self.files[0].seconds
        expected = _SPARE * self._costs[cost] if cost in self._costs else _FIRST[cost] * unit
        return self._spent() + expected <= self.seconds

    def _best(self) -> TriedFile:
        """Return the file that serves the goal best; where none holds it, the nearest."""
        holding = [each for each in self.files if self.goal.holds(each)]
        if self.goal.aim == "ms":
            # Not for noise: what is not faster in three of four rounds is no reason to leave floating point.
            holding = [each for each in holding if each.faster or each.name == UNTOUCHED] or holding
        if holding:
            return min(holding, key=lambda each: (self.goal.value(each), each.file_bytes))
        return min(self.files, key=lambda each: (self.goal.excess(each), self.goal.value(each)))

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


def _clock(seconds: float) -> str:
    return f"{max(seconds, 0) // 60:.0f}:{max(seconds, 0) % 60:02.0f}"
