"""Who runs trials: this process, one after the other, or workers elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from attar._src.core.errors import AttarError, short_message
from attar._src.core.interrupt import raise_if_interrupted
from attar._src.core.registry import references_from
from attar._src.pipeline.execution.preparation import Preparation, prepare_run
from attar._src.recipe.recipe import Recipe
from attar._src.search.trial import TrialOutcome, TrialReference, run_trial


@dataclass(frozen=True)
class TrialJob:
    """One run of one recipe.

    Attributes:
        number: of the trial.
        rung: of the halving; None without.
        recipe: of its point.
        folder: of the run.
        model: whose file counts.
        reference: what the file is compared with.
        seconds: of its timing.
        known: folder of the run that has the models without holes.
    """

    number: int
    rung: int | None
    recipe: Recipe
    folder: Path
    model: str
    reference: TrialReference
    seconds: float
    known: Path

    def run(self, prepared: Preparation | None = None) -> TrialOutcome:
        """Run it here."""
        return run_trial(
            self.recipe,
            self.folder,
            model=self.model,
            reference=self.reference,
            seconds=self.seconds,
            prepared=prepared,
            known=self.known,
        )


@dataclass(frozen=True)
class FinishedJob:
    """A job that is over: an outcome, or the reason for none."""

    job: TrialJob
    outcome: TrialOutcome | None
    reason: str = ""


class Workers(ABC):
    """Runs jobs, several at a time."""

    #: Jobs that may run at a time.
    slots: int = 1

    @abstractmethod
    def start(self, job: TrialJob) -> None:
        """Begin a job."""

    @abstractmethod
    def wait(self) -> FinishedJob:
        """Return a job that is over; at least one was begun."""

    @abstractmethod
    def close(self) -> None:
        """Let the workers go."""


@dataclass
class ThisProcess(Workers):
    """Runs one job at a time here; data and modules are prepared once where holes do not change them."""

    prepared: Preparation | None = None
    _jobs: list[TrialJob] = field(default_factory=list)

    def start(self, job: TrialJob) -> None:
        self._jobs.append(job)

    def wait(self) -> FinishedJob:
        job = self._jobs.pop(0)
        return finished(job, self.prepared)

    def close(self) -> None:
        self._jobs.clear()


def finished(
    job: TrialJob,
    prepared: Preparation | None = None,
    keep: Callable[[Preparation], None] | None = None,
) -> FinishedJob:
    """Run a job; what it raises is the reason that it made no file.

    Args:
        job: to run.
        prepared: data and modules of a job before.
        keep: called with those that were prepared for this one.
    """
    try:
        with references_from(job.recipe.folder):
            if prepared is None or not prepared.fits(job.recipe):
                prepared = prepare_run(job.recipe)
                if keep is not None:
                    keep(prepared)
            return FinishedJob(job, job.run(prepared))
    except AttarError as error:
        # After a signal, which may be the cause, it tells nothing of the trial.
        raise_if_interrupted()
        return FinishedJob(job, None, str(error))
    except Exception as error:  # noqa: BLE001 - a trial may fail in any library, or in the user's code
        raise_if_interrupted()
        return FinishedJob(job, None, short_message(error))
