"""A search for a goal: takes steps until nothing pays or there is no time."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attar._src.core.digest import file_digest
from attar._src.core.errors import AttarError, AttarWarning
from attar._src.core.interrupt import interruptible
from attar._src.report.wording import clock, plural
from attar._src.search.compression_result import CompressionResult
from attar._src.search.goal import Goal
from attar._src.search.plan import UNTOUCHED, SearchStep, chosen_activations, next_step
from attar._src.search.post_training import PostTraining
from attar._src.search.recommended import recommended
from attar._src.search.search_folder import FILES, SearchFolder
from attar._src.search.step_times import SOLVING, StepTimes, begun_words
from attar._src.search.training.trainer import Trainer
from attar._src.search.tried_file import TriedFile

#: Name under which it is told why nothing can be trained.
TRAINING = "training"
#: Why a step was left out that more time would not bring to the goal.
_ONLY_NEARER = "not made: its file would be nearer to the goal, and more time would not make it hold"


@dataclass
class GoalSearch:
    """Takes steps until nothing pays or there is no time.

    Attributes:
        folder: of the files.
        goal: of the search.
        maker: makes files without training, and measures all.
        seconds: time for the search, None for as long as it pays.
        started: when it began, by ``time.monotonic``.
        say: called with a line on each step.
        trainer: trains files; None if nothing may be trained.
        files: made so far.
        failed: name of a step -> why it made no file.
        skipped: steps for which there was no time.
        before: seconds that were spent before the search was interrupted.
        times: what steps took.
    """

    folder: SearchFolder
    goal: Goal
    maker: PostTraining
    seconds: float | None
    started: float
    say: Callable[[str], None]
    trainer: Trainer | None = None
    files: list[TriedFile] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    before: float = 0.0
    times: StepTimes = field(default_factory=StepTimes)

    def run(self, facts: Mapping[str, Any]) -> CompressionResult:
        """Take the steps and write the folder.

        Args:
            facts: of the goal, the module and the data; those of a search that goes on must be the same.

        Raises:
            SpecError: the folder has another search.
            AttarError: another process searches in the folder.
            KeyboardInterrupt: SIGINT arrived; the best so far is in the folder, and the search can go on.
        """
        with self.folder.alone():
            return self._searched(facts)

    def _searched(self, facts: Mapping[str, Any]) -> CompressionResult:
        self.files, self.failed = self.folder.begin(facts)
        self.before = self.folder.spent()
        if said := self.folder.going_on(len(self.files)):
            self.say(said)
        self.times = StepTimes.of(self.files)
        try:
            with interruptible():
                while step := self._next():
                    fitting = step if step.name == UNTOUCHED else self._fitting(step)
                    if fitting is not None:
                        self._take(fitting)
                    elif step.nearest:
                        self.failed[step.name] = _ONLY_NEARER
                    else:
                        self.skipped.append(step.name)
        except KeyboardInterrupt:
            if self.files:
                self.folder.finish(self._result("interrupted; go on with resume").as_dict())
            raise
        result = self._result(
            "the time was up for what was left to try"
            if self.skipped
            else "nothing that was left to try would have paid"
        )
        self.folder.finish(result.as_dict())
        return result

    def _next(self) -> SearchStep | None:
        if self.trainer is not None and TRAINING in self.failed:
            return next_step(self.goal, self.files, self.failed, self.skipped)
        found = next_step(self.goal, self.files, self.failed, self.skipped, None if self.trainer is None else _no_way)
        if found is not None or self.trainer is None:
            return found
        if not self.trainer.epochs and self._left() <= 0:
            # How long trainings are is decided when there is time for them, with --resume.
            self.skipped.append(TRAINING)
            return None
        if not self._can_train(self.trainer):
            return self._next()
        return next_step(self.goal, self.files, self.failed, self.skipped, self.trainer.ranked)

    def _can_train(self, trainer: Trainer) -> bool:
        """Prepare the training when it comes to it; return whether it is possible, and journal why not."""
        if trainer.epochs:
            return True
        left = None if self.seconds is None else self._left()
        trainer.activations = 8 if chosen_activations(self.goal, self.files) == 8 else None
        try:
            trainer.decide(self.folder, left)
            self.say(f"{TRAINING}: {plural(trainer.epochs, 'epoch')} each, {trainer.precision}, {trainer.layout}")
            for each in self.files:
                if each.way:
                    trainer.took(each.way, each.stages, each.seconds + self.folder.cut_seconds(each.name))
        except AttarError as error:
            self.failed[TRAINING] = str(error)
            self.folder.fail(TRAINING, str(error), 0.0)
            self.say(f"{TRAINING}: {error}")
        return TRAINING not in self.failed

    def _take(self, step: SearchStep) -> None:
        begun, solved = time.monotonic(), self.maker.solved(step.options)
        self._announce(step, solved=solved)
        try:
            with self.folder.counting_cuts(step.name):
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
        if step.trained is None:
            self.times.add("levels" if step.cost == "size" and not solved else step.cost, seconds)
        elif self.trainer is not None:
            seconds += self.folder.cut_seconds(step.name)
            self.trainer.took(step.trained.way, self.trainer.stages(step.trained) or [], seconds)

    def _announce(self, step: SearchStep, *, solved: bool) -> None:
        """Say of a step that will take long what it is, and about how long."""
        shorter = None if step.trained is None else step.trained.epochs
        why = "" if shorter is None else f"with {plural(shorter, 'epoch')} to end in time"
        if step.cost in ("size", "train") and not solved:
            why = SOLVING
        if said := begun_words(step.name, self._expected(step), why):
            self.say(said)

    def _made(self, step: SearchStep, begun: float) -> TriedFile:
        path = self.folder.path / FILES / f"{re.sub(r'[^0-9a-z]+', '-', step.name.lower())}.attar"
        made: dict[str, Any] = {"options": self.maker.every_option(step.options)}
        with warnings.catch_warnings():
            # They are in the report beside the file.
            warnings.simplefilter("ignore", AttarWarning)
            if step.trained is None:
                self.maker.make(step.options).save(path)
            else:
                assert self.trainer is not None
                recipe, stages = self.trainer.make(step.trained, path)
                made = {"options": {}, "way": step.trained.way, "target": dict(step.trained.target)}
                made |= {"stages": stages, "recipe": recipe}
        judged = self.maker.judged(path)
        floating = next((self.folder.path / each.file for each in self.files if each.name == UNTOUCHED), path)
        times = self.maker.times([path, floating])
        low, ratio, high = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75]).round(4).tolist()
        return TriedFile(
            name=step.name,
            **made,
            file=path.relative_to(self.folder.path).as_posix(),
            sha256=file_digest(path),
            file_bytes=path.stat().st_size,
            **judged,
            ms=round(float(np.median(times[:, 0])), 5),
            against_floating=(low, ratio, high),
            seconds=round(time.monotonic() - begun, 3),
        )

    def _tell(self, file: TriedFile) -> None:
        best = self._best()
        left = "" if self.seconds is None else f", {clock(self._left())} left"
        lost = f"{file.drop + 0.0:.3g} {file.unit} lost{' (ruined)' if file.ruined else ''}"
        self.say(
            f"{file.name}: {file.file_bytes:,} bytes, {lost}, {file.ms:.3g} ms; "
            f"best so far {best.name}{'' if self.goal.holds(best) else ', which does not hold'}{left}"
        )

    def _spent(self) -> float:
        return self.before + time.monotonic() - self.started

    def _left(self) -> float:
        return math.inf if self.seconds is None else self.seconds - self._spent()

    def _fitting(self, step: SearchStep) -> SearchStep | None:
        """Return the step as it ends in time: a training with fewer epochs if these are enough; else None."""
        left = self._left()
        if step.trained is None or self.trainer is None:
            return step if self._expected(step) <= left else None
        what = f"epochs of {step.name}"
        epochs = self.folder.decided(what)
        if epochs is None:
            fits = self._expected(step) <= left
            epochs = self.trainer.epochs if fits else self.trainer.epochs_within(step.trained, left)
            if epochs is None:
                return None
            # A training that is cut goes on with the same, in whatever time is left: its folder takes no others.
            self.folder.decide(what, lambda: epochs)
        if epochs == self.trainer.epochs:
            return step
        return replace(step, trained=replace(step.trained, epochs=epochs))

    def _expected(self, step: SearchStep) -> float:
        if step.trained is not None and self.trainer is not None:
            return self.trainer.expected(step.trained)
        return self.times.expected(step.cost, solved=self.maker.solved(step.options))

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
            self.maker.held.examples,
        )


def _no_way(*_: object) -> tuple[str, ...]:
    """Return no way: before all else was tried, nothing is prepared for training."""
    return ()
