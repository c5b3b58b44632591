"""From the start of a process to its first answer: a .attar file, its ONNX export in ONNX Runtime alone, in turns.

    python benchmarks/cold_start.py studies/resnet20/w8a8.attar [--rounds N] [--json]

Every process imports what it needs, opens its file with one thread, runs it once on zeros at the example sizes, and
ends. ``python`` is the same .attar file without the extension in C. Times are medians over the rounds, the ratio is the
median of the ratios inside each round; processor time says more than wall time on a machine that has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from attar._src.backends.registry import BACKENDS
from attar._src.runtime.session import Session

_ATTAR = """
import sys
from attar import Session
session = Session(sys.argv[1], threads=1)
session.run(session.example())
"""
_ONNX = """
import json, sys
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {name: np.zeros(shape, kind) for name, shape, kind in json.loads(sys.argv[2])})
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    session = Session(given.file, threads=1)
    feed = [[name, list(array.shape), array.dtype.str] for name, array in session.example().items()]
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        BACKENDS["onnx"].export(session.artifact, exported)
        commands: dict[str, tuple[list[str], dict[str, str]]] = {
            "onnxruntime": ([_ONNX, str(exported), json.dumps(feed)], {}),
            "attar": ([_ATTAR, str(given.file)], {"ATTAR_NO_NATIVE": "0"}),
            "python": ([_ATTAR, str(given.file)], {"ATTAR_NO_NATIVE": "1"}),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for number in range(given.rounds + 1):
            for name, (arguments, environment) in commands.items():
                took = _run(arguments, environment)
                if number:  # the first round fills the caches of the system
                    times[name].append(took)
    figures = {name: _figures(rows, times["onnxruntime"]) for name, rows in times.items()}
    print(json.dumps({"rounds": given.rounds, **figures}, indent=1) if given.json else _table(figures))


def _run(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds of wall time and of processor time of a process."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", *arguments], env={**os.environ, **environment}, check=True)
    wall, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used


def _figures(rows: list[tuple[float, float]], yardstick: list[tuple[float, float]]) -> dict[str, Any]:
    pairs = list(zip(rows, yardstick, strict=True))
    found = {}
    for place, kind in enumerate(("wall", "cpu")):
        found[f"{kind}_ms"] = round(1e3 * median(row[place] for row in rows), 1)
        found[f"{kind}_ratio"] = round(median(row[place] / other[place] for row, other in pairs), 2)
    return found


def _table(figures: dict[str, dict[str, Any]]) -> str:
    rows = [f"{'':12}{'wall ms':>9}{'ratio':>7}{'CPU ms':>9}{'ratio':>7}"]
    for name, found in figures.items():
        rows.append(
            f"{name:12}{found['wall_ms']:9.1f}{found['wall_ratio']:7.2f}{found['cpu_ms']:9.1f}{found['cpu_ratio']:7.2f}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
