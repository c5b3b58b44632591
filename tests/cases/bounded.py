"""Opens, verifies and runs files, each in a process of its own with bounded memory and processor time.

``python -m tests.cases.bounded FOLDER`` prints how each file of a folder ends, as JSON: the name of an exception, or
"ran", or what ended its process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from attar import ArtifactError, AttarError, Session, open_artifact
from attar._src.core.tensors import DTYPES
from attar._src.runtime.engine import saturates

ROOT = Path(__file__).parents[2]
MEMORY = 1 << 30  # beyond what the interpreter and its libraries take
SECONDS = 4  # of processor time; 2 are the aim on an idle machine


def ends(folder: Path) -> dict[str, str]:
    """Return how each file of a folder ends."""
    command = [sys.executable, "-m", "tests.cases.bounded", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def exercise(path: Path) -> str:
    """Open, verify and run a file; return how that ends. ``NAME.json`` beside it may give the shapes of its inputs."""
    try:
        artifact = open_artifact(path)
        artifact.verify()
        session = Session(artifact, threads=1)
        given = path.with_suffix(".json")
        shapes = json.loads(given.read_text()) if given.exists() else {}
        kinds = {port.name: DTYPES[port.dtype] for port in session.inputs}
        session.run({name: np.zeros(shape, kinds[name]) for name, shape in shapes.items()} or session.example())
    except ArtifactError as error:
        return f"ArtifactError: {error}"
    except AttarError as error:
        return f"{type(error).__name__}: {error}"
    return "ran"


def _in_its_own_process(path: Path) -> str:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(60)
        try:
            said = exercise(path)
        except BaseException as error:  # noqa: BLE001 -- whatever is raised is what is looked for
            said = f"{type(error).__name__}: {error}"
        os.write(theirs, said.encode()[:4000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    status = os.waitpid(child, 0)[1]
    return f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said


if __name__ == "__main__":
    saturates()
    print(json.dumps({path.name: _in_its_own_process(path) for path in sorted(Path(sys.argv[1]).glob("*.attar"))}))
