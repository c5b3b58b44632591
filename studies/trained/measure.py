"""Measure three networks with weights that other people trained: the floating module against files of it.

    ATTAR_DATA=... python studies/trained/measure.py [speaker] [pitch] [sentences]

README.md says which packages carry the weights. Writes results.json, and the tables of README.md and docs/models.md.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import attar

HERE = Path(__file__).parent
TASKS = {"speaker": "speaker LSTM", "pitch": "pitch CNN", "sentences": "sentence encoder"}
#: Setting in words -> what is asked of ``attar.quantize``.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "8/8": {"bits": 8, "activations": 8},
    "8": {"bits": 8},
    "4": {"bits": 4},
    "4, groups of 32": {"bits": 4, "granularity": "group:32"},
}
_BATCH = 100
#: Times that the advice of a warning is followed.
_ROUNDS = 1
_ADVICE = re.compile(r"(overrides|keep|keep_activations)=(\{.*?\}|\(.*?\)) ")

Inputs = NDArray[Any] | dict[str, NDArray[Any]]


def main() -> None:
    """Measure the tasks that are named, all by default, and write results.json and the tables."""
    torch.set_num_threads(1)
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in sys.argv[1:] or TASKS:
        results[name] = measure(name)
        path.write_text(json.dumps(results, indent=2) + "\n")
    table = rows({name: results[name] for name in TASKS if name in results})
    for document in (HERE / "README.md", HERE.parents[1] / "docs" / "models.md"):
        write_table(document, table)


def measure(name: str) -> dict[str, Any]:
    """Return the figures of one task: the floating module, a file for each setting, and files after its warnings."""
    task = importlib.import_module(name)
    calibration, test = task.inputs()
    module = task.module()
    parts = _parts(_named(test, module))
    with torch.no_grad():
        floating = np.concatenate([module(**_tensors(part)).numpy() for part in parts])
    weights = sum(each.numel() for each in module.parameters())
    files: dict[str, Any] = {}
    for words, options in SETTINGS.items():
        options, rounds = dict(options), 0
        while True:
            found = _file(task, module, calibration, parts, options)
            files[words + (", advice followed" if rounds else "")] = found
            print(name, words, found, flush=True)
            advice = _advice(found["warnings"])
            if not advice or rounds == _ROUNDS:
                break
            options, rounds = _with(options, advice), rounds + 1
    return {
        "metric": task.METRIC,
        "parameters": weights,
        "float32_bytes": 4 * weights,
        "floating": task.score(floating),
        "files": files,
    }


def _file(task: Any, module: torch.nn.Module, calibration: Inputs, parts: Any, options: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", attar.AttarWarning)
        path, begun = Path(folder) / "m.attar", time.process_time()
        report = attar.quantize(module, calibration, **options).save(path)
        seconds = time.process_time() - begun
        session = attar.Session(path, threads=1)
        outputs = np.concatenate([session.run(part)[session.main_output] for part in parts])
    (fidelity,) = report["fidelity"]["outputs"].values()
    return {
        "options": options,
        "figure": task.score(outputs),
        "file_bytes": report["file_bytes"],
        "signal_to_noise_db": fidelity["signal_to_noise_db"],
        "processor_seconds": round(seconds, 1),
        "warnings": report["warnings"],
    }


def _advice(said: list[str]) -> dict[str, Any]:
    """Return the first options that a warning says to write: more bits before floating point."""
    matched = _ADVICE.search(" ".join(said))
    return {matched[1]: ast.literal_eval(matched[2])} if matched else {}


def _with(options: Mapping[str, Any], advice: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with advice added to them."""
    merged = dict(options)
    for name, value in advice.items():
        before = merged.get(name, type(value)())
        merged[name] = {**before, **value} if isinstance(value, dict) else (*before, *value)
    return merged


def rows(results: Mapping[str, Any]) -> list[str]:
    """Return the table as lines of Markdown."""
    lines = [
        "| model, setting | figure | file, MB | times smaller | signal to noise, dB | warned |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        size = found["float32_bytes"]
        lines.append(f"| **{TASKS[name]}**: {found['metric']} | {found['floating']:.2f} | {size / 1e6:.2f} | 1 |  |  |")
        for words, file in found["files"].items():
            smaller, warned = size / file["file_bytes"], "yes" if file["warnings"] else ""
            cells = [f"{file['figure']:.2f}", f"{file['file_bytes'] / 1e6:.2f}", f"{smaller:.1f}"]
            lines.append(f"| {words} | {' | '.join(cells)} | {file['signal_to_noise_db']:.1f} | {warned} |")
    return lines


def write_table(document: Path, lines: list[str]) -> None:
    """Replace the table between its two marks in a document."""
    begin, end = "<!-- table: studies/trained -->", "<!-- end of table -->"
    before, _, rest = document.read_text().partition(begin)
    _, _, after = rest.partition(end)
    document.write_text("\n".join([before + begin, *lines, end + after]))


def _named(inputs: Inputs, module: torch.nn.Module) -> dict[str, NDArray[Any]]:
    return inputs if isinstance(inputs, dict) else {next(iter(inspect.signature(module.forward).parameters)): inputs}


def _parts(inputs: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    count = len(next(iter(inputs.values())))
    return [{name: each[at : at + _BATCH] for name, each in inputs.items()} for at in range(0, count, _BATCH)]


def _tensors(inputs: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(each) for name, each in inputs.items()}


if __name__ == "__main__":
    main()
