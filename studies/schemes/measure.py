"""Solvers, schemes, observers and equalization after training, on three trained networks.

    python studies/schemes/measure.py [--task ResNet-20] [ROW ...]    adds rows to results.json
    python studies/schemes/measure.py --write                         writes figure.svg and the table of README.md again

Networks, calibration inputs and test data are those of ``benchmarks/trained.py``; results that are in results.json
already are left alone. The figure is that of the decoded file on ONNX Runtime, one thread, once a row.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot

import attar
from attar._src.cli import show

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
sys.path.insert(0, str(HERE.parent.parent / "benchmarks"))

from trained import TASKS, Task  # noqa: E402

#: First and last layer of ResNet-20 have 8 bits; so have the embedding and the decoder of the GRU.
ENDS = {
    "ResNet-20": {"conv1": 8, "linear": 8},
    "character GRU": {"encoder": 8, "decoder": 8},
    "stories Llama": {"embedding": 8},
    "uneven ResNet-20": {"conv1": 8, "linear": 8},
}
#: How far the channels of the uneven ResNet-20 are apart: factors from 1/10 to 10.
UNEVEN = 10.0

#: What is measured, and the marker of a number of bits.
FIGURES = {
    "ResNet-20": "accuracy, %",
    "character GRU": "bits a character",
    "stories Llama": "bits a token",
    "uneven ResNet-20": "accuracy, %",
}
MARKERS = {"4": "o", "3": "s", "2": "^"}

_WEIGHTS: dict[str, dict[str, Any]] = {
    "w4 absmax": {"bits": 4},
    "w4 percentile": {"bits": 4, "scales": "percentile"},
    "w4 mse": {"bits": 4, "scales": "mse"},
    "w4 hqq": {"bits": 4, "scales": "hqq"},
    "w4 gptq": {"bits": 4, "scales": "gptq"},
    "w4 apot": {"bits": 4, "scheme": "apot"},
    "w4 codebook": {"bits": 4, "scheme": "codebook"},
    "w4 gptq powers of two": {"bits": 4, "scales": "gptq", "power_of_two": True},
    "w3 gptq": {"bits": 3, "scales": "gptq"},
    "w3 apot": {"bits": 3, "scheme": "apot"},
    "w3 codebook": {"bits": 3, "scheme": "codebook"},
    "w2 gptq": {"bits": 2, "scales": "gptq"},
    "w2 ternary": {"bits": 2, "scheme": "ternary"},
    "w2 codebook": {"bits": 2, "scheme": "codebook"},
    "w1 binary": {"bits": 1, "scheme": "binary"},
    **{
        f"w{bits} {solver} group:32, zero points": {
            "bits": bits,
            "scales": solver,
            "granularity": "group:32",
            "symmetric": False,
        }
        for bits in (4, 3)
        for solver in ("absmax", "mse", "hqq")
    },
}
_ACTIVATIONS: dict[str, dict[str, Any]] = {
    f"w8a{bits} {observer}": {"bits": 8, "activations": bits, "observer": observer}
    for bits in (8, 4)
    for observer in ("minmax", "percentile", "mse", "kl")
}
_EQUALIZED: dict[str, dict[str, Any]] = {
    f"w{bits}a8 {scale}{', equalized' if equalize else ''}": {
        "bits": bits,
        "activations": 8,
        "granularity": scale,
        "equalize": equalize,
    }
    for bits, scale in ((8, "tensor"), (8, "channel"), (4, "channel"))
    for equalize in (False, True)
}
#: Task -> row -> options of ``attar.quantize``.
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "ResNet-20": {**_WEIGHTS, **_ACTIVATIONS},
    "character GRU": _WEIGHTS,
    "stories Llama": _WEIGHTS,
    "uneven ResNet-20": _EQUALIZED,
}


def task_of(name: str) -> Task:
    """Return a task; the uneven ResNet-20 computes what ResNet-20 does, with channels of very different size.

    In each block the batch-norm of the first convolution is multiplied by a factor for each channel, from 1/10 to 10,
    and the second convolution divided by it, as training with weight decay on separable convolutions may end.
    """
    if name in TASKS:
        return TASKS[name]()
    task, draw = TASKS["ResNet-20"](), np.random.default_rng(0)
    with torch.no_grad():
        for layer in (task.module.layer1, task.module.layer2, task.module.layer3):
            for block in layer:
                size = len(block.bn1.weight)
                factor = torch.from_numpy(UNEVEN ** draw.uniform(-1, 1, size)).float()
                block.bn1.weight.mul_(factor)
                block.bn1.bias.mul_(factor)
                block.conv2.weight.div_(factor[:, None, None])
    return task


def measure(name: str, task: Task, options: dict[str, Any]) -> dict[str, Any]:
    """Return bytes, the figure and processor time of one row; of the untouched module without options."""
    inputs = {key: torch.from_numpy(value) for key, value in task.calibration.items()}
    begun = time.process_time()
    result = attar.quantize(task.module, inputs, **{"overrides": ENDS[name], "tolerance": None, **options})
    with tempfile.TemporaryDirectory() as folder:
        report = result.save(Path(folder) / "m.attar")
        seconds = time.process_time() - begun
        session = attar.Session(Path(folder) / "m.attar", threads=1)
        count, scores = len(next(iter(task.test.values()))), []
        for start in range(0, count, 100):
            part = slice(start, min(start + 100, count))
            found = session.run({key: value[part] for key, value in task.test.items()})
            scores.append(task.reduced(next(iter(found.values())), part))
    return {
        "figure": round(task.score(np.concatenate(scores)), 3),
        "file_bytes": report["file_bytes"],
        "processor_seconds": round(seconds, 1),
    }


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table into README.md."""
    lines = ["| network | row | figure | file, bytes | processor time, s |", "|---|---|---:|---:|---:|"]
    for name, options in ROWS.items():
        for row in options:
            lines += [
                f"| {name} | {row} | {each['figure']:.2f} | {each['file_bytes']:,} | {each['processor_seconds']:.0f} |"
                for each in rows
                if (each["task"], each["row"]) == (name, row)
            ]
    page = HERE / "README.md"
    before, begin, rest = page.read_text().partition("<!-- table: studies/schemes -->\n")
    _, end, after = rest.partition("<!-- end of table -->")
    page.write_text(before + begin + "\n".join(lines) + "\n" + end + after)


def draw(rows: list[dict[str, Any]]) -> None:
    """Write figure.svg: figure against bytes of rows of 3 and 4 bits, a panel for each network, a marker for bits."""
    rows = [each for each in rows if "a" not in each["row"].partition(" ")[0] and each["row"][1] in MARKERS]
    names = [name for name in ROWS if any(each["task"] == name for each in rows)]
    figure, panels = pyplot.subplots(1, len(names), figsize=(5 * len(names), 4.5), squeeze=False)
    for name, axes in zip(names, panels[0], strict=True):
        for each in (each for each in rows if each["task"] == name):
            bits, _, words = each["row"].partition(" ")
            place = each["file_bytes"] / 1000, each["figure"]
            axes.plot(*place, MARKERS[bits[1]], color="tab:blue")
            axes.annotate(words, place, textcoords="offset points", xytext=(4, 3), fontsize=7)
        better = "larger" if name.endswith("ResNet-20") else "smaller"
        axes.set_title(f"{name}: {FIGURES[name]}, {better} is better", fontsize=9)
        axes.set_xlabel("file, KB")
        axes.margins(x=0.25)
    handles = [pyplot.Line2D([], [], marker=mark, color="tab:blue", linestyle="") for mark in MARKERS.values()]
    panels[0][0].legend(handles, [f"{bits} bits" for bits in MARKERS])
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "attar"
    figure.savefig(HERE / "figure.svg", metadata={"Date": None})


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all by default")
    parser.add_argument("--task", choices=[*ROWS], action="append", help="all by default; repeatable")
    parser.add_argument("--write", action="store_true", help="only write figure and table of what results.json has")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", attar.AttarWarning)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    known = {(each["task"], each["row"]) for each in rows}
    for name in () if given.write else given.task or ROWS:
        task = None
        for row, options in ROWS[name].items():
            if (given.rows and row not in given.rows) or (name, row) in known:
                continue
            task = task or task_of(name)
            rows.append({"task": name, "row": row, **measure(name, task, options)})
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            show.say("measured", json.dumps(rows[-1]))
    if given.write:
        write(rows)
        draw(rows)


if __name__ == "__main__":
    main()
