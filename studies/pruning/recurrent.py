"""The character GRU with weights that became zero, or with half its units: data and figure of ``recurrent.yaml``.

    ATTAR_DATA=... attar run studies/pruning/recurrent.yaml --out runs/pruning/recurrent
    ATTAR_DATA=... python studies/pruning/recurrent.py runs/pruning/recurrent     adds to recurrent.json and prints it

Bits a character are those of the decoded files on the last tenth of tinyshakespeare, in pieces of 200 characters. Files
are timed on one thread, in turns with that of the untouched network, with one piece and with 16: processor time, as a
run of some milliseconds is interrupted on a loaded machine and a shorter one is not.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import string
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import attar
from attar._src.artifact.inspect import inspect_artifact

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "recurrent.json"
#: Characters of a piece, and one more to foretell.
LEARNED, TESTED = 65, 201
ROUNDS = 40
BATCHES = (1, 16)


def network() -> Any:
    """Return the untrained GRU: two layers of 200 units."""
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
    return importlib.import_module("trained").CharacterGru()


def shakespeare(split: str) -> dict[str, NDArray[np.int64]]:
    """Return pieces of text, and the character behind each of theirs: nine tenths to learn, the last to test."""
    folder = Path(os.environ["ATTAR_DATA"]) / "tinyshakespeare"
    text = gzip.decompress((folder / "input.txt.gz").read_bytes()).decode()
    codes = np.array([string.printable.index(each) for each in text], np.int64)
    last = len(codes) * 9 // 10
    part, length = (codes[last:], TESTED) if split == "test" else (codes[:last], LEARNED)
    pieces = part[: len(part) // length * length].reshape(-1, length)
    return {"characters": pieces[:, :-1], "labels": pieces[:, 1:]}


def bits_per_character(outputs: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Return the mean of -log2 of the probability of each character."""
    found = []
    for scores, wanted in zip(outputs, targets, strict=True):
        wide = scores.astype(np.float64)
        wide -= wide.max(-1, keepdims=True)
        likely = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
        found.append(-np.take_along_axis(likely, wanted[:, None], -1).mean() / np.log(2))
    return float(np.mean(found))


def measure(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of the files of a run by model."""
    files = {path.stem: path for path in sorted(folder.glob("*.attar"), key=lambda path: path.stem != "teacher")}
    sessions = {name: attar.Session(path, threads=1) for name, path in files.items()}
    test, found = shakespeare("test"), dict[str, dict[str, Any]]()
    for name, session in sessions.items():
        parts = [session.run(each) for each in np.array_split(test["characters"], 10)]
        tensors = inspect_artifact(session.artifact)["tensors"]
        found[name] = {
            "bits_per_character": bits_per_character(np.concatenate(parts), test["labels"]),
            "numbers": sum(each["elements"] for each in tensors),
            "nonzero": sum(each["nonzero"] for each in tensors),
            "file_bytes": session.artifact.file_bytes,
        }
    for batch in BATCHES:
        piece = test["characters"][:batch]
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                begun = time.thread_time()
                session.run(piece)
                times[name].append(time.thread_time() - begun)
        dense = median(times["teacher"])
        for name, each in times.items():
            row = {"processor_milliseconds": 1000 * median(each), "times_faster": dense / median(each)}
            found[name][f"batch {batch}"] = row
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    times = [f"batch {batch}" for batch in BATCHES]
    lines = [f"| | bits a character | not zero | file, bytes | {' | '.join(times)} |", "|---|" + "---:|" * 5]
    for name, row in found.items():
        cells = [f"{row['bits_per_character']:.3f}", f"{row['nonzero']:,}", f"{row['file_bytes']:,}"]
        cells += [f"{row[key]['times_faster']:.2f}x" for key in times]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the files of a run, and print."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if len(sys.argv) > 1:
        known |= measure(Path(sys.argv[1]))
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    print(table(known))


if __name__ == "__main__":
    main()
