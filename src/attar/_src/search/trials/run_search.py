"""``attar.run_search``: a recipe with holes, from its points to the files that hold a goal.

point --> recipe --> run --> decoded file --> bytes, drop, milliseconds --+
  ^                                                                       |
  +------------ sampler <------------------- storage <--------------------+--> front, best.attar, page
"""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.core.interrupt import interruptible
from attar._src.core.registry import references_from
from attar._src.pipeline.execution.preparation import Preparation, prepare_run
from attar._src.recipe.recipe import Recipe
from attar._src.report.wording import clock
from attar._src.search.holes import values_in_words
from attar._src.search.recommended import recommended
from attar._src.search.samplers.sampler import Sampler
from attar._src.search.search_folder import demand_trials_folder
from attar._src.search.space import Point
from attar._src.search.trial import TrialOutcome, judged_model
from attar._src.search.trials.budget import Budget, expected_seconds
from attar._src.search.trials.by_layer import search_task
from attar._src.search.trials.claims import Claims
from attar._src.search.trials.halving import goes_on
from attar._src.search.trials.reference import REFERENCE, SearchReference, layers_of, make_reference
from attar._src.search.trials.results import SearchResult, finish_search, tried_file
from attar._src.search.trials.search_facts import search_facts
from attar._src.search.trials.spec import HoledRecipe, read_holed_recipe
from attar._src.search.trials.store import StoredTrial, TrialStore, busy_seconds
from attar._src.search.trials.workers import FinishedJob, ThisProcess, TrialJob, Workers
from attar._src.search.tried_file import TriedFile

#: Seconds of the timing of a file: where time counts, and where it is told alone.
_TIMED, _GLANCED = 1.0, 0.2
#: Processes that ended while they ran one trial, and trials in a row that failed, after which it is enough.
_ATTEMPTS, _FAILURES = 5, 5
#: Trials in a row of points that were tried before, after which nothing is left to try.
_REPEATED = 50
_DONE = "all trials are done"


def run_search(
    recipe: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    settings: Sequence[str] = (),
    ray: str | None = None,
    on_step: Callable[[str], None] | None = None,
) -> SearchResult:
    """Fill the holes of a recipe by trials, and keep the files that hold a goal.

    Every trial is a run of the recipe with values in its holes, in a folder of its own. Its decoded file is judged on
    the validation split; the test split is read once at the end, for the files on the front. What comes next follows
    from the trials before, so that a search that was killed goes on to the same files.

    Args:
        recipe: path of a recipe in YAML, or a mapping of the same form, which may have Python objects; with a
            ``search`` and holes, ``{choose: [2, 3, 4]}`` or ``{between: [0.3, 0.9]}``.
        out: folder of the search.
        resume: go on with the search in the folder, also beside other processes that run it.
        settings: values in place of those in the recipe, as in ``("search.trials=80",)``.
        ray: address of a Ray cluster that runs the trials, or ``local``.
        on_step: called with a line on each trial.

    Returns:
        The files, the front and its recipes, and the best; if no file holds the goal, the nearest.

    Raises:
        SpecError: a hole has a value that cannot stand there, or the folder has another search.
        AttarError: no trial made a file.
        KeyboardInterrupt: SIGINT arrived; what was found is in the folder, and the search can go on.
    """
    started, out = time.monotonic(), Path(out).resolve()
    holed = read_holed_recipe(recipe, settings)
    demand_trials_folder(out)
    with interruptible(), references_from(holed.folder / str(holed.tree.get("root", "."))):
        holed = holed.for_trials(holed.check())
        first = holed.at(holed.space.lowest)
        prepared = prepare_run(first)
        if holed.for_layers:
            holed = holed.with_layers(partial(layers_of, prepared, first))
            first = holed.check()
        out.mkdir(parents=True, exist_ok=True)
        store = TrialStore(out, holed.spec.storage, search_facts(holed, first, prepared.splits), resume=resume)
        search = _Search(out, holed, first, prepared, store, started, on_step or (lambda _: None))
        workers = ThisProcess(prepared) if ray is None else _ray_workers(ray, first.threads or 1)
        try:
            return search.run(workers)
        finally:
            search.claims.release_all()
            workers.close()
            prepared.restore()


def _ray_workers(address: str, threads: int) -> Workers:
    # Imported here, not at the top: Ray is large, and an extra of its own.
    module = importlib.import_module("attar._src.search.trials.ray_workers")
    found: Workers = module.RayWorkers(address, threads)
    return found


@dataclass
class _Search:
    """Asks, runs and tells until the budget is spent or nothing is left to try."""

    out: Path
    holed: HoledRecipe
    first: Recipe
    prepared: Preparation
    store: TrialStore
    started: float
    say: Callable[[str], None]
    claims: Claims = field(init=False)
    sampler: Sampler = field(init=False)
    budget: Budget = field(init=False)
    reference: SearchReference = field(init=False)
    failures: list[str] = field(default_factory=list)
    repeated: int = 0
    #: Number of a trial -> seconds at its rungs so far.
    climbed: dict[int, float] = field(default_factory=dict)
    ended: str = _DONE

    def __post_init__(self) -> None:
        spec = self.holed.spec
        self.claims = Claims(self.out)
        self.model = judged_model(self.first, spec.model)
        most = None if spec.most_trials == float("inf") else int(spec.most_trials)
        self.sampler = spec.sampler.start(search_task(self.holed, self.first, self.prepared, most))
        self.budget = Budget(spec, self.started, busy_seconds(self.store.trials()))

    def run(self, workers: Workers) -> SearchResult:
        spec = self.holed.spec
        seconds = _TIMED if spec.goal.timed else _GLANCED
        self.reference = make_reference(self.holed, self.first, self.model, self.out, self.prepared, seconds=seconds)
        running: set[int] = set()
        try:
            while True:
                while len(running) < workers.slots and (job := self._next(seconds)) is not None:
                    running.add(job.number)
                    workers.start(job)
                if not running:
                    break
                done = workers.wait()
                running.discard(done.job.number)
                again = self._take(done, seconds)
                if again is not None:
                    running.add(again.number)
                    workers.start(again)
        except KeyboardInterrupt:
            for number in running:
                self.store.attempt(number, -1)
            self._finish("interrupted; go on with resume", test=False)
            raise
        return self._finish(self.ended, test=True)

    def _next(self, seconds: float) -> TrialJob | None:
        """Return the next job; None where nothing is left to begin."""
        while (number := self._claimed()) is not None:
            trial = self.store.trial(number)
            assert trial.point is not None
            same = self._same(trial)
            if trial.attempts >= _ATTEMPTS:
                self._fail(number, f"its process ended {_ATTEMPTS} times while it ran")
            elif same is None:
                self.repeated = 0
                self.store.attempt(number)
                # What was measured at the last rung is in its folder, and decides once more.
                rung = None if self.holed.spec.halving is None else max(len(trial.scores) - 1, 0)
                job = self._job(number, trial.point, rung, seconds)
                if job is not None:
                    return job
            elif same.outcome is None:
                self.repeated += 1
                self._fail(number, same.reason, again=True)
            else:
                self.repeated += 1
                self._succeed(number, same.outcome.model_copy(update={"seconds": 0.0}))
        return None

    def _claimed(self) -> int | None:
        """Return a trial to run, claimed: one whose process ended before it was over, or a new one; None if neither."""
        trials = self._told_all()
        number = self._left_over(trials)
        return self._new(trials) if number is None else number

    def _told_all(self) -> list[StoredTrial]:
        """Tell the sampler of all trials, and return them."""
        trials = self.store.trials()
        for each in trials:
            if each.point is None or each.number in self.sampler.told:
                continue
            if each.over:
                self.sampler.tell(each.number, each.point, each.outcome)
            else:
                self.sampler.begin(each.number, each.point)
        return trials

    def _left_over(self, trials: Sequence[StoredTrial]) -> int | None:
        """Return a trial whose process ended before it was over, claimed; None if there is none."""
        spec = self.holed.spec
        for each in trials:
            # Without a storage that others share, a process that ended before it had the lock was one of here.
            here = spec.storage is None or self.claims.is_here(each.number)
            open_here = here and not each.over and each.number not in self.claims
            if open_here and each.number < spec.most_trials and self.claims.take(each.number):
                if self.store.trial(each.number).over:
                    # Another process ended it since the trials were read.
                    self.claims.release(each.number)
                    continue
                if each.point is None:
                    self._ask(each.number)
                return each.number
        return None

    def _new(self, trials: Sequence[StoredTrial]) -> int | None:
        """Return a new trial, claimed; None if the budget is spent, or nothing is left to try."""
        spec, number, self.ended = self.holed.spec, len(trials), _DONE
        if number >= spec.most_trials:
            return None
        if len(self.failures) >= _FAILURES:
            self.ended = f"{_FAILURES} trials in a row failed, the last: {self.failures[-1]}"
            return None
        if trials and not self.budget.is_time_for(expected_seconds(trials)):
            self.ended = "the time was up"
            return None
        if self.repeated >= _REPEATED or self._all_tried(trials) or self._asked(number) is None:
            self.ended = "nothing was left to try"
            return None
        number = self.store.begin()
        if number >= spec.most_trials:
            # Another process took the last one.
            self.store.fail(number, "one more than the budget")
            return None
        if not self.claims.take(number):
            # Another process has it already.
            return self._claimed()
        self._ask(number)
        return number

    def _all_tried(self, trials: Sequence[StoredTrial]) -> bool:
        space = self.holed.space
        return len(trials) >= space.count <= len({space.key(each.point) for each in trials if each.point is not None})

    def _asked(self, number: int) -> Point | None:
        point = self.sampler.ask(number)
        if point is not None:
            with prefixed_errors(f"recipe.search.sampler: trial {number}"):
                self.holed.space.check(point)
        return point

    def _ask(self, number: int) -> None:
        self.store.set_point(number, self._asked(number) or self.holed.space.lowest)

    def _same(self, trial: StoredTrial) -> StoredTrial | None:
        """Return another trial of the same recipe that is over."""
        others = [each for each in self.store.trials() if each.over and each.point and each.number != trial.number]
        wanted = self._key(trial)
        return next((each for each in others if self._key(each) == wanted), None)

    def _key(self, trial: StoredTrial) -> str:
        return self.holed.space.key(self.holed.counted(trial.point or {}))

    def _job(self, number: int, point: Point, rung: int | None, seconds: float) -> TrialJob | None:
        """Return the job of a trial; None, after noting that it failed, if its values do not go together."""
        try:
            recipe = self.holed.at(point, rung)
        except SpecError as error:
            self._fail(number, str(error))
            return None
        return TrialJob(
            number,
            rung,
            recipe,
            self.claims.path(number, rung),
            self.model,
            self.reference.compared,
            seconds,
            self.out / REFERENCE,
        )

    def _take(self, done: FinishedJob, seconds: float) -> TrialJob | None:
        """Write what a job found, and return the job at the next rung if the trial goes on."""
        job, outcome, halving = done.job, done.outcome, self.holed.spec.halving
        if outcome is None:
            self._fail(job.number, done.reason)
            return None
        for name in ("state", "logs"):
            shutil.rmtree(job.folder / name, ignore_errors=True)
        before, last = self.climbed.pop(job.number, 0.0), outcome.seconds
        file = self.claims.relative(job.folder / outcome.file)
        outcome = outcome.model_copy(update={"file": file, "seconds": round(before + last, 3)})
        if halving is not None and job.rung is not None:
            trials = self.store.trials()
            trial = next(each for each in trials if each.number == job.number)
            scores = [*trial.scores[: job.rung], self.holed.spec.goal.score(outcome)]
            self.store.set_scores(job.number, scores)
            up = goes_on(halving, [each.scores for each in trials if each.over], scores)
            if up and self.budget.is_time_for(halving.factor * last):
                assert trial.point is not None
                self.climbed[job.number] = outcome.seconds
                return self._job(job.number, trial.point, job.rung + 1, seconds)
        self._succeed(job.number, outcome)
        return None

    def _succeed(self, number: int, outcome: TrialOutcome) -> None:
        self.failures.clear()
        self.store.finish(number, outcome, self.holed.spec.goal.excess(outcome))
        self.claims.release(number)
        files = self._files()
        best = recommended(self.holed.spec.goal, files)
        left = self.budget.left(self.store.trials(), self.holed.space.count)
        holds = "" if self.holed.spec.goal.holds(best) else ", which does not hold"
        self.say(
            f"{self._named(number)} -> {outcome.file_bytes:,} bytes, {outcome.drop:.3g} {outcome.unit} lost; best so "
            f"far {best.name} ({best.file_bytes:,} bytes, {best.drop:.3g} lost{holds})"
            f"{'' if left is None else f', about {clock(left)} left'}"
        )

    def _named(self, number: int) -> str:
        """Return a trial with the values in its holes: ``trial 3: bits=3, sparsity=0.5``."""
        point = self.store.trial(number).point
        return f"trial {number}" if point is None else f"trial {number}: {values_in_words(self.holed.counted(point))}"

    def _fail(self, number: int, reason: str, *, again: bool = False) -> None:
        if not again:
            self.failures.append(reason)
        self.store.fail(number, reason)
        self.claims.release(number)
        self.say(f"{self._named(number)} -> {reason}")

    def _files(self) -> list[TriedFile]:
        trials = [each for each in self.store.trials() if each.outcome is not None]
        return [self.reference.as_file({}), *(tried_file(each, self.holed) for each in trials)]

    def _finish(self, ended: str, *, test: bool) -> SearchResult:
        return finish_search(
            self.out, self.holed, self.store.trials(), self.reference, self.prepared, ended, model=self.model, test=test
        )
