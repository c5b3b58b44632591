"""Accuracy of files beside ONNX Runtime's int8 of the same networks, on trained weights and whole test sets.

    python benchmarks/accuracy.py [NETWORK ...] [--json]
    python benchmarks/accuracy.py --table benchmarks/accuracy.json

Variants are what ``attar.quantize`` makes, and peers those of ``attar bench --peers``, as in ``runtime.py``; all are
calibrated on the same inputs. Every model gets the test set in the same batches of 50 on one thread.

A figure is compared with each peer's: the difference is positive where the file is better, and its standard error is
the delete-a-group jackknife's, from the figures without each group of test examples in turn. Signal to noise is that of
all outputs, against the floating-point network. A network whose weights or data are not there is named and left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import attar
from attar._src.measure.peers import FLOAT32, PEERS, STATIC, PeerSource, build_peers
from attar._src.measure.runner import Runner, open_runner
from attar._src.runtime.lower import lower
from runtime import VARIANTS, machine
from trained import TASKS, Arrays, Task

BATCH, CALIBRATED = 50, 32
DYNAMIC = next(name for name in PEERS if "dynamic" in name)


@dataclass(frozen=True)
class Judged:
    """What a model made of a test set.

    Attributes:
        score: its figure.
        without: its figures without each group of examples.
        facts: what the table says of it.
    """

    score: float
    without: NDArray[np.float64]
    facts: dict[str, Any]


def measure(name: str) -> dict[str, Any]:
    """Return the figures of a network."""
    begun = time.process_time()
    try:
        task = TASKS[name]()
    except (KeyError, OSError, ModuleNotFoundError, SystemExit) as error:
        return {"network": name, "left_out": f"{type(error).__name__}: {error}"}
    with tempfile.TemporaryDirectory() as folder:
        models, missing = _models(task, Path(folder))
        wanted = [_output(models[FLOAT32], task.test, part) for part in _parts(task.test)]
        found = {model: _judged(task, runner, wanted) for model, runner in models.items()}
    peers = [model for model in found if model in PEERS]
    return {
        "network": name,
        "figure": task.figure,
        "larger_is_better": task.larger,
        "examples": len(task.groups),
        "models": {model: judged.facts for model, judged in found.items()},
        "better_by": {
            variant: {peer: _better(task, found[variant], found[peer]) for peer in peers} for variant in task.variants
        },
        "missing": missing,
        "processor_seconds": round(time.process_time() - begun),
    }


def _models(task: Task, folder: Path) -> tuple[dict[str, Runner], dict[str, str]]:
    """Return the floating-point network, the variants and the peers, opened; and why some peers are missing."""
    inputs = {name: torch.from_numpy(array) for name, array in task.calibration.items()}
    variants = {variant: folder / f"{i}.attar" for i, variant in enumerate(task.variants)}
    for variant, path in variants.items():
        attar.quantize(task.module, inputs, **VARIANTS[variant], **task.options).save(path)
    attar.quantize(task.module, inputs, keep=("*",)).save(folder / "float32.attar")
    floating = lower(attar.open_artifact(folder / "float32.attar"), floating=True).serialized()
    (folder / "float32.onnx").write_bytes(floating)
    feeds = [
        {name: array[part] for name, array in task.calibration.items()} for part in _parts(task.calibration, CALIBRATED)
    ]
    ours = {variant: open_runner(path, threads=1) for variant, path in variants.items()}
    source = PeerSource(attar.open_artifact(folder / "float32.attar"), folder, feeds[0], feeds, folder / "float32.onnx")
    peers = [peer for peer in build_peers(source, threads=1) if peer.name in (FLOAT32, DYNAMIC, STATIC)]
    opened = {peer.name: peer.runner for peer in peers if peer.runner is not None}
    return opened | ours, {peer.name: peer.reason for peer in peers if peer.runner is None}


def _judged(task: Task, runner: Runner, wanted: list[NDArray[np.float32]]) -> Judged:
    every, noise = [], 0.0
    for part, right in zip(_parts(task.test), wanted, strict=True):
        output = _output(runner, task.test, part)
        every.append(task.reduced(output, part))
        noise += float(np.square(output.astype(np.float64) - right).sum())
    reduced = np.concatenate(every)
    score = task.score(reduced)
    facts: dict[str, Any] = {"figure": round(score, 4), "bytes": runner.file_bytes}
    if noise:
        facts["signal_to_noise_db"] = round(10 * np.log10(_power(wanted) / noise), 2)
    without = [task.score(reduced[task.groups != group]) for group in np.unique(task.groups)]
    return Judged(score, np.array(without), facts)


def _power(wanted: list[NDArray[np.float32]]) -> float:
    """Return the sum of squares about the mean of each channel."""
    flat = np.concatenate(wanted).astype(np.float64)
    flat = flat.reshape(-1, flat.shape[-1])
    return float(np.square(flat - flat.mean(0)).sum())


def _output(runner: Runner, inputs: Arrays, part: slice) -> NDArray[np.float32]:
    made = runner.run(runner.feed({name: array[part] for name, array in inputs.items()}))
    return np.asarray(next(iter(made.values())), np.float32)


def _parts(inputs: Arrays, size: int = BATCH) -> Iterator[slice]:
    count = len(next(iter(inputs.values())))
    return (slice(start, start + size) for start in range(0, count, size))


def _better(task: Task, ours: Judged, theirs: Judged) -> dict[str, float]:
    """Return by how much our figure is better, and the standard error of that."""
    left = ours.without - theirs.without
    error = np.sqrt((left.size - 1) / left.size * np.square(left - left.mean()).sum())
    by = (ours.score - theirs.score) * (1 if task.larger else -1)
    return {"by": round(by, 4), "error": round(float(error), 4)}


def table(found: dict[str, Any]) -> str:
    """Return the figures as Markdown: each model's, with its signal to noise, and the differences from the peers."""
    measured = [each for each in found["networks"] if "models" in each]
    models = list(dict.fromkeys(model for each in measured for model in each["models"]))
    rows = [["figure (signal to noise, dB)", *models], ["---", *["---:"] * len(models)]]
    for each in measured:
        cells = []
        for model in models:
            of = each["models"].get(model)
            noise = "" if of is None or "signal_to_noise_db" not in of else f" ({of['signal_to_noise_db']:.1f})"
            cells.append("-" if of is None else f"{of['figure']:.{2 if each['larger_is_better'] else 3}f}{noise}")
        rows.append([f"{each['network']}: {each['figure']}", *cells])
    peers = (DYNAMIC, STATIC)
    columns = [(variant, peer) for variant in VARIANTS for peer in peers]
    rows += [[], ["better by (standard error)", *(f"{variant} than {peer}" for variant, peer in columns)]]
    rows.append(["---", *["---:"] * len(columns)])
    for each in measured:
        differences = [each["better_by"].get(variant, {}).get(peer) for variant, peer in columns]
        cells = ["-" if d is None else f"{d['by']:+.3f} ({d['error']:.3f})" for d in differences]
        rows.append([each["network"], *cells])
    lines = [f"| {' | '.join(row)} |" if row else "" for row in rows]
    left_out = [
        f"{each['network']} is left out: {each['left_out']}" for each in found["networks"] if "left_out" in each
    ]
    return "\n".join([*lines, *left_out])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {'; '.join(TASKS)}; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--table", type=Path, metavar="JSON", help="only print the table of what --json printed")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.table.read_text())))
        return
    torch.set_num_threads(1)
    # What the warnings are about is what is measured here.
    warnings.simplefilter("ignore", attar.AttarWarning)
    networks = []
    for name in given.networks or TASKS:
        networks.append(measure(name))
        print(json.dumps(networks[-1]), file=sys.stderr)
    found = {"machine": machine(), "networks": networks}
    print(json.dumps(found, indent=1) if given.json else table(found))


if __name__ == "__main__":
    main()
