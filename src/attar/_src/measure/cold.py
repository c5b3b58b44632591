"""Cold start and peak memory of a model, measured in fresh processes. Part of ``measure``.

Run as ``python -m attar._src.measure.cold FILE SHAPES THREADS`` it is such a process: it opens the file, runs it
on zeros of these shapes (JSON, ``[[[1, 3, 32, 32], "<f4"], ...]``, one for each input), waits for the first
answer, and prints what that took as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from attar._src.core.errors import ArtifactError
from attar._src.measure.runner import open_runner

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cold:
    """A first use.

    Attributes:
        cold_start_ms: from opening the file to the first answer, the interpreter and its imports being there.
        peak_memory_bytes: the most memory the process held, interpreter and libraries included; None where the system
            does not tell.
    """

    cold_start_ms: float
    peak_memory_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def cold_start(path: Path, shapes: list[tuple[list[int], str]], *, threads: int = 1, repeats: int = 3) -> Cold:
    """Return the median of ``repeats`` fresh processes, one after the other.

    Args:
        path: a ``.attar`` or ``.onnx`` file.
        shapes: the shape and numpy type of each input, in order.
        threads: how many threads the model may use.
        repeats: how many processes.

    Raises:
        ArtifactError: the process failed; its message is passed on.
    """
    command = [sys.executable, "-m", "attar._src.measure.cold", str(path), json.dumps(shapes), str(threads)]
    found = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ArtifactError(f"{path} could not be opened in a fresh process: {done.stderr.strip()[-300:]}")
        found.append(json.loads(done.stdout))
    memory = [item["peak_memory_bytes"] for item in found]
    return Cold(
        cold_start_ms=median(item["cold_start_ms"] for item in found),
        peak_memory_bytes=None if None in memory else int(median(memory)),
    )


def peak_memory() -> int | None:
    """Return the most bytes this process has held at once, None where the system does not tell."""
    if _STATUS.exists():
        # Not getrusage: there, Linux counts what the parent held when it forked.
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource  # noqa: PLC0415 -- not on every system
    except ModuleNotFoundError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_in_process(path: str, shapes: str, threads: str) -> None:
    """Open a file, run it once on zeros, and print what it took."""
    arrays = [np.zeros(shape, kind) for shape, kind in json.loads(shapes)]
    started = time.perf_counter()
    runner = open_runner(Path(path), threads=int(threads))
    runner.run(dict(zip(runner.inputs, arrays, strict=True)))
    took = (time.perf_counter() - started) * 1e3
    sys.stdout.write(json.dumps(Cold(took, peak_memory()).as_dict()))


if __name__ == "__main__":
    measure_in_process(*sys.argv[1:])
