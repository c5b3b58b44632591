"""Cold start and peak memory of a model, measured in fresh processes.

``python -m attar._src.measure.cold FILE SHAPES THREADS LIMITS WEIGHTS`` is such a process: it opens the file, runs it
once on zeros and prints the figures as JSON. SHAPES is JSON with one entry for each input:
``[[[1, 3, 32, 32], "<f4"], ...]``, LIMITS that of :class:`Limits`, WEIGHTS their form in a session.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from attar._src.artifact.limits import Limits
from attar._src.core.errors import ArtifactError
from attar._src.measure.runner import open_runner
from attar._src.runtime.session import WeightForm

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cold:
    """The first use of a model.

    Attributes:
        cold_start_ms: from opening the file to the first output; interpreter and imports are not counted.
        peak_memory_bytes: peak resident memory, with interpreter and libraries; None if the system does not report it.
    """

    cold_start_ms: float
    peak_memory_bytes: int | None


def cold_start(
    path: Path,
    shapes: list[tuple[list[int], str]],
    *,
    threads: int = 1,
    repeats: int = 3,
    limits: Limits | None = None,
    weights: WeightForm = "auto",
) -> Cold:
    """Return the medians over ``repeats`` fresh processes, one after the other.

    Args:
        path: a ``.attar`` or ``.onnx`` file.
        shapes: shape and numpy type of each input, in order: ``[([1, 3, 32, 32], "<f4")]``.
        threads: threads for a run.
        repeats: number of processes.
        limits: limits on what the file may allocate.
        weights: their form in the session of a ``.attar`` file.
    """
    command = [sys.executable, "-m", "attar._src.measure.cold", str(path), json.dumps(shapes), str(threads)]
    command += [(limits or Limits()).model_dump_json(), weights]
    found = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ArtifactError(f"{path} could not be opened in a fresh process: {done.stderr.strip()[-300:]}")
        found.append(Cold(**json.loads(done.stdout)))
    memory = [cold.peak_memory_bytes for cold in found if cold.peak_memory_bytes is not None]
    return Cold(median(cold.cold_start_ms for cold in found), int(median(memory)) if memory else None)


def peak_memory() -> int | None:
    """Return the peak resident memory of this process in bytes; None if the system does not report it."""
    if _STATUS.exists():
        # Not getrusage: on Linux it includes the memory of the parent when it forked.
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource  # noqa: PLC0415 -- not on every system
    except ModuleNotFoundError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_in_process(path: str, shapes: str, threads: str, limits: str, weights: WeightForm) -> None:
    """Open a file, run it once on zeros and print the figures."""
    arrays = [np.zeros(shape, kind) for shape, kind in json.loads(shapes)]
    started = time.perf_counter()
    bounds = Limits.model_validate_json(limits)
    runner = open_runner(Path(path), threads=int(threads), limits=bounds, weights=weights)
    runner.run(dict(zip(runner.inputs, arrays, strict=True)))
    took = (time.perf_counter() - started) * 1e3
    sys.stdout.write(json.dumps(vars(Cold(took, peak_memory()))))


if __name__ == "__main__":
    measure_in_process(*sys.argv[1:])  # type: ignore[arg-type]
