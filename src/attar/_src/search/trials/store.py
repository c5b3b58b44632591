"""The trials of a search in a storage of Optuna, which processes of one or several machines share.

begun --> point --> outcome | reason          one row each; a number from 0 on, given out once
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from attar._src.core.errors import AttarError, SpecError
from attar._src.pipeline.folder import differences
from attar._src.search.search_folder import STORAGE
from attar._src.search.space import Point
from attar._src.search.trial import TrialOutcome

_STUDY = "attar"
#: Seconds that a process waits while another one writes.
_PATIENCE = 60


@dataclass(frozen=True)
class StoredTrial:
    """A trial as the storage has it.

    Attributes:
        number: from 0.
        point: None until it was asked for.
        outcome: None of a trial that failed or is not over.
        reason: why it failed; empty otherwise.
        scores: at the rungs it reached, where a search has rungs.
        over: whether it is.
        began, ended: times, local as Optuna has them; of a trial that went on, when it did.
        attempts: how often a process began it.
    """

    number: int
    point: Point | None
    outcome: TrialOutcome | None
    reason: str
    scores: tuple[float, ...]
    over: bool
    began: datetime | None
    ended: datetime | None
    attempts: int


class TrialStore:
    """Opens the storage of a search, or begins one.

    Args:
        folder: of the search.
        url: of the storage; SQLite in the folder if None.
        facts: that must be the same for a search to go on, as JSON values.
        resume: go on with the search that is there.

    Raises:
        SpecError: the storage has a search and ``resume`` is false, or one with other facts; its URL is malformed.
        AttarError: the storage cannot be opened.
    """

    def __init__(self, folder: Path, url: str | None, facts: Mapping[str, Any], *, resume: bool) -> None:
        here = URL.create("sqlite", database=str((folder / STORAGE).resolve()))
        self.url = url or here.render_as_string()
        try:
            parsed = make_url(self.url)
        except ArgumentError as error:
            raise SpecError(
                f"recipe.search.storage: {self.url!r} is no URL of a database, such as sqlite:////shared/trials.db or "
                "postgresql://user@host/name"
            ) from error
        # In messages.
        self.place = parsed.render_as_string(hide_password=True)
        # In turns, as tables are made that are not there.
        file = parsed.database if self.url.startswith("sqlite") else None
        with filelock.FileLock(f"{file or folder / STORAGE}.lock"):
            self._study = self._opened(folder, url, resume=resume)
        before = self._study.user_attrs.get("facts")
        if before is None:
            self._study.set_user_attr("facts", json.loads(json.dumps(facts)))
        elif changed := [*differences(before, json.loads(json.dumps(facts)))]:
            raise SpecError(
                f"{folder} has another search, which cannot go on: {'; '.join(changed[:4])}; undo the change, or name "
                "another folder"
            )

    def _opened(self, folder: Path, url: str | None, *, resume: bool) -> optuna.Study:
        options = {"connect_args": {"timeout": _PATIENCE}} if self.url.startswith("sqlite") else {}
        try:
            storage = RDBStorage(self.url, engine_kwargs=options)
        except Exception as error:
            # Each database has errors of its own.
            raise AttarError(f"the storage {self.place} cannot be opened: {error}") from error
        there = any(each.study_name == _STUDY for each in optuna.get_all_study_summaries(storage, False))
        if there and not resume:
            raise SpecError(
                f"{folder if url is None else self.place} has a search already; go on with it (resume=True), "
                f"or name another {'folder' if url is None else 'storage'}"
            )
        return optuna.create_study(
            storage=storage,
            study_name=_STUDY,
            directions=["minimize", "minimize"],
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),
        )

    def trial(self, number: int) -> StoredTrial:
        """Return a trial."""
        return next(each for each in self.trials() if each.number == number)

    def trials(self) -> list[StoredTrial]:
        """Return all trials by number."""
        return [_stored(each) for each in self._study.get_trials(deepcopy=False)]

    def begin(self) -> int:
        """Return the number of a new trial."""
        return self._study.ask().number

    def attempt(self, number: int, more: int = 1) -> None:
        """Count one more attempt at a trial, or one less."""
        trial = self._trial(number)
        trial.set_user_attr("attempts", int(trial.user_attrs.get("attempts", 0)) + more)
        if more > 0:
            trial.set_user_attr("began", datetime.now().isoformat())

    def set_point(self, number: int, point: Point) -> None:
        """Write which point a trial tries."""
        self._trial(number).set_user_attr("point", dict(point))

    def set_scores(self, number: int, scores: Sequence[float]) -> None:
        """Write the scores of a trial at its rungs so far."""
        self._trial(number).set_user_attr("scores", list(scores))

    def finish(self, number: int, outcome: TrialOutcome, excess: float) -> None:
        """Write what was measured of a trial, and by how much it breaks the bounds."""
        trial = self._trial(number)
        trial.set_user_attr("outcome", outcome.model_dump(mode="json"))
        trial.set_constraint("goal", min(excess, 1e9))
        self._study.tell(number, [float(outcome.file_bytes), outcome.drop], skip_if_finished=True)

    def fail(self, number: int, reason: str) -> None:
        """Write why a trial made no file."""
        self._trial(number).set_user_attr("failed", reason)
        self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def _trial(self, number: int) -> optuna.Trial:
        found = next(each for each in self._study.get_trials(deepcopy=False) if each.number == number)
        return optuna.Trial(self._study, found._trial_id)


def _stored(trial: FrozenTrial) -> StoredTrial:
    facts = trial.user_attrs
    outcome = facts.get("outcome") if trial.state == TrialState.COMPLETE else None
    failed = trial.state in (TrialState.FAIL, TrialState.PRUNED)
    return StoredTrial(
        number=trial.number,
        point=facts.get("point"),
        outcome=None if outcome is None else TrialOutcome.model_validate(outcome),
        reason=str(facts.get("failed", "ended by another program")) if failed else "",
        scores=tuple(facts.get("scores", ())),
        over=trial.state.is_finished(),
        began=datetime.fromisoformat(facts["began"]) if "began" in facts else trial.datetime_start,
        ended=trial.datetime_complete,
        attempts=int(facts.get("attempts", 0)),
    )


def busy_seconds(trials: Sequence[StoredTrial]) -> float:
    """Return the seconds in which at least one trial ran; of one that is not over, nothing.

    Two trials of ten seconds side by side took ten seconds, one after the other twenty.
    """
    spans = sorted((each.began, each.ended) for each in trials if each.began and each.ended)
    total, until = 0.0, datetime.min
    for began, ended in spans:
        total += max(0.0, (ended - max(began, until)).total_seconds())
        until = max(until, ended)
    return total
