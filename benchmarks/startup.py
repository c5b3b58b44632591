"""What a run costs beside training: a tiny recipe from the start of Python to the page, beside another commit.

    python benchmarks/startup.py --against REV [--rounds N] [--json]

The recipe: two of ``examples/digits.py`` on scikit-learn's digits, one epoch a stage; the second learns from the first
under a budget (``compress``). Each run is a process of its own, ``attar run`` with one thread; the two trees take turns
(A B, B A, ...), after one run of each that compiles and counts the exports, and is not timed. A tree is ``src/`` and
``examples/``: those of REV as ``git archive`` gives them, and the working tree. The ratio is the median of the ratios
inside each round: other work on the machine slows both runs of a round alike.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

_HERE = Path(__file__).resolve().parent.parent
_RECIPE = """
data: digits
seeds: [0]
precision: 32-true
layout: contiguous
models:
  teacher:
    source: {factory: "digits.py:DigitNet", arguments: {width: 32}}
    stages: [{stage: train, epochs: 1, batch: 128}]
  student:
    source: {factory: "digits.py:DigitNet", arguments: {width: 16}}
    stages: [{stage: train, epochs: 1, batch: 128}, {stage: compress, teacher: teacher, size: 3, epochs: 1, batch: 128}]
"""
_COMMAND = ("-m", "attar", "run", "recipe.yaml", "--out", "out")
#: The same recipe with the exports counted.
_COUNT = """
import attar, torch
exports, export = [], torch.onnx.export
torch.onnx.export = lambda *args, **options: exports.append(1) or export(*args, **options)
report = attar.run("recipe.yaml", "out").report
print(attar.__file__, len(exports), sum(model["file_bytes"] for model in report["models"]), sep="\\n")
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--against", required=True, metavar="REV", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON, as startup.json has it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trees = {"before": Path(folder) / "before", "here": _HERE}
        commit = _check_out(given.against, trees["before"])
        counts = {name: _count(tree, Path(folder)) for name, tree in trees.items()}
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
        for number in range(given.rounds):
            for name in list(trees)[:: -1 if number % 2 else 1]:
                runs[name].append(_time(trees[name], Path(folder)))
                print(f"round {number} {name}: {runs[name][-1]}", file=sys.stderr)
    figures = _figures(runs, counts)
    facts = {
        "against": commit,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "onnxscript", "onnxruntime")},
        },
        **figures,
    }
    print(json.dumps(facts, indent=1) if given.json else _table(figures))


def _check_out(revision: str, folder: Path) -> str:
    git = ["git", "-C", str(_HERE)]
    packed = subprocess.run([*git, "archive", revision, "src", "examples"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    found = subprocess.run([*git, "rev-parse", "--short", revision], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def _count(tree: Path, folder: Path) -> dict[str, int]:
    """Return how many exports a run of a tree takes, and the bytes of its files."""
    where, exports, size = _run(tree, folder, "-c", _COUNT).split()[-3:]
    assert Path(where).is_relative_to(tree), f"{where} was imported, not {tree}"
    return {"exports": int(exports), "bytes": int(size)}


def _time(tree: Path, folder: Path) -> dict[str, float]:
    """Return the seconds a run takes, and its seconds of processor time."""
    before, start = os.times(), time.perf_counter()
    _run(tree, folder, *_COMMAND)
    seconds, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": round(seconds, 2), "cpu_seconds": round(used, 2)}


def _run(tree: Path, folder: Path, *arguments: str) -> str:
    """Run Python with a tree in a folder that has the recipe; return what it prints."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        (Path(work) / "recipe.yaml").write_text(_RECIPE)
        (Path(work) / "digits.py").write_bytes((tree / "examples" / "digits.py").read_bytes())
        environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _figures(runs: dict[str, list[dict[str, float]]], counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    kinds = ("seconds", "cpu_seconds")
    pairs = list(zip(runs["here"], runs["before"], strict=True))
    medians = {
        name: {kind: round(median(row[kind] for row in rows), 2) for kind in kinds} | counts[name]
        for name, rows in runs.items()
    }
    ratios = {f"ratio_{kind}": round(median(a[kind] / b[kind] for a, b in pairs), 3) for kind in kinds}
    return {"rounds": len(pairs), **medians, **ratios, "runs": runs}


def _table(figures: dict[str, Any]) -> str:
    rows = [f"{'':8}{'seconds':>10}{'CPU s':>10}{'exports':>9}"]
    for name in ("before", "here"):
        found = figures[name]
        rows.append(f"{name:8}{found['seconds']:10.2f}{found['cpu_seconds']:10.2f}{found['exports']:9.0f}")
    rows.append(f"{'ratio':8}{figures['ratio_seconds']:10.3f}{figures['ratio_cpu_seconds']:10.3f}")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
