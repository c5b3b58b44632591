"""Workers of a Ray cluster: one task for each job, on whatever machine has room."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError, short_message
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.folder import RECIPE
from attar._src.search.trial import OUTCOME
from attar._src.search.trials.workers import FinishedJob, TrialJob, Workers, finished

# Before the import, which reads it: nothing is sent anywhere.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

#: In a worker, the data and modules of the job before.
_prepared: list[Preparation] = []


@dataclass
class RayWorkers(Workers):
    """Runs jobs on a cluster, as many at a time as it has processors for.

    Recipe, data and the user's files must lie at the same paths on every machine; the folder of the search need not be
    shared, as the files come back. What a machine that is lost was running is a trial that failed.

    Args:
        address: of the cluster; ``local`` for processes on this machine.
        threads: of one training.
    """

    address: str
    threads: int = 1
    _jobs: dict[Any, TrialJob] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            ray.init(address=self.address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        except Exception as error:
            # Ray has no class of its own for this.
            raise AttarError(f"no Ray cluster answers at {self.address}: {short_message(error)}") from error
        self.slots = max(1, int(ray.cluster_resources().get("CPU", 1)) // self.threads)
        # One that is lost with its machine is a failure; the search tries another point instead.
        self._task = ray.remote(num_cpus=self.threads, max_retries=0)(_run_remotely)

    def start(self, job: TrialJob) -> None:
        self._jobs[self._task.remote(job, job.reference.path.read_bytes())] = job

    def wait(self) -> FinishedJob:
        (ready, *_), _ = ray.wait([*self._jobs], num_returns=1)
        job = self._jobs.pop(ready)
        try:
            done, files = ray.get(ready)
        except ray.exceptions.RayError as error:
            return FinishedJob(job, None, f"its worker was lost: {short_message(error, 1)}")
        for name, data in files.items():
            if not (job.folder / name).exists():
                job.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(job.folder / name, data)
        return FinishedJob(job, done.outcome, done.reason)

    def close(self) -> None:
        for task in self._jobs:
            ray.cancel(task, force=True)
        ray.shutdown()


def _run_remotely(job: TrialJob, reference: bytes) -> tuple[FinishedJob, dict[str, bytes]]:
    """Run a job in a worker, and return with it the files that the search keeps."""
    if not job.reference.path.exists():
        job.reference.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(job.reference.path, reference)
    if _prepared and not _prepared[0].fits(job.recipe):
        _prepared.clear()
    done = finished(job, _prepared[0] if _prepared else None, _prepared.append)
    names = () if done.outcome is None else (done.outcome.file, RECIPE, OUTCOME)
    return done, {name: Path(job.folder, name).read_bytes() for name in names}
