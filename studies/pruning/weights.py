"""Weights pruned without training: accuracy against zeros of the public ResNet-20, by score, update, unit and scope.

    python studies/pruning/weights.py [ROW ...] [--seed 0]     adds rows to weights.json
    python studies/pruning/weights.py --draw                   writes weights.svg and the table again

Each row sees 1,024 images of CIFAR-10's training set, drawn by the seed, without their labels but for scores by
gradients. Accuracy is on the 10,000 test images, once a row, of the decoded file on ONNX Runtime, one thread. Latency
is of one image, in turns with the dense file. Rows that are in weights.json already are left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot
from rich.console import Console

import attar
from attar._src.cli import show
from attar._src.core.registry import load_object
from attar._src.data.preprocessing import parse_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.build_module import build_module
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.runtime.preprocess import preprocess

HERE = Path(__file__).parent
RESULTS = HERE / "weights.json"
EXAMPLES = 1024
MAGNITUDE: dict[str, Any] = {"score": "l1", "update": "none"}

#: Row -> options of ``attar.prune``.
ROWS: dict[str, dict[str, Any]] = {
    "50 % obs": {"sparsity": 0.5},
    "2:4 obs": {"unit": "2:4"},
    "50 % magnitude": {"sparsity": 0.5, **MAGNITUDE},
    "2:4 magnitude": {"unit": "2:4", **MAGNITUDE},
    "50 % sparsegpt": {"sparsity": 0.5, "update": "sparsegpt"},
    "2:4 sparsegpt": {"unit": "2:4", "update": "sparsegpt"},
    "50 % wanda": {"sparsity": 0.5, "score": "wanda", "update": "none"},
    "50 % magnitude, then obs": {"sparsity": 0.5, "score": "l1"},
    "50 % obs, erdos_renyi": {"sparsity": 0.5, "scope": "erdos_renyi"},
    "60 % obs": {"sparsity": 0.6},
    "70 % obs": {"sparsity": 0.7},
    "70 % obs, erdos_renyi": {"sparsity": 0.7, "scope": "erdos_renyi"},
    "50 % obs, 4x1": {"sparsity": 0.5, "unit": "4x1"},
    "50 % taylor": {"sparsity": 0.5, "score": "taylor", "update": "none"},
    "2:4 taylor": {"unit": "2:4", "score": "taylor", "update": "none"},
    "50 % random": {"sparsity": 0.5, "score": "random", "update": "none"},
}


def measure(row: str, seed: int) -> dict[str, Any]:
    """Return accuracy, zeros, bytes and latency of one row."""
    root = Path(os.environ["ATTAR_DATA"])
    network = load_object(f"{HERE.parent.parent / 'examples' / 'resnet.py'}:resnet20")
    module = build_module(network, {}, root / "weights" / "cifar10_resnet20.safetensors")
    preprocessing = parse_preprocessing("imagenet")
    assert preprocessing is not None
    learn, test = load_dataset("cifar10", "train").subset(EXAMPLES, seed), load_dataset("cifar10", "test")
    begun = time.process_time()
    x = torch.from_numpy(preprocess(preprocessing, learn.x))
    options: dict[str, Any] = {"preprocessing": preprocessing, "task": "classification", "seed": seed}
    assert learn.y is not None
    data = (x, torch.from_numpy(learn.y)) if ROWS[row].get("score") == "taylor" else x
    result = attar.prune(module, data, examples=EXAMPLES, **options, **ROWS[row])
    seconds = time.process_time() - begun
    with tempfile.TemporaryDirectory() as folder:
        pruning = result.save(Path(folder) / "m.attar")["pruning"]
        found = evaluate_accuracy(attar.Session(Path(folder) / "m.attar", threads=1), test.x, test.y)
    whole, left = pruning["parameters"][0], result.figures["nonzero"][1]
    return {
        "row": row,
        "seed": seed,
        "accuracy": round(100 * found.accuracy, 2),
        "zeros": round(1 - left / whole, 4),
        "excluded": pruning["excluded"],
        **{key: pruning[key] for key in ("parameters", "nonzero", "nonzero_macs", "macs", "file_bytes")},
        "times_faster": round(pruning["times_faster"], 3),
        "processor_seconds": round(seconds, 1),
    }


def draw(rows: list[dict[str, Any]]) -> None:
    """Write weights.svg and the table of the page."""
    table = [
        "| row | seeds | accuracy, % | zeros, % | file, bytes | times faster | processor time, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for each in sorted(rows, key=lambda each: ([*ROWS].index(each["row"]), each["seed"])):
        grouped.setdefault(each["row"], []).append(each)
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for place, (row, group) in enumerate(grouped.items()):
        mean = {key: sum(each[key] for each in group) / len(group) for key in ("accuracy", "zeros", "times_faster")}
        size = group[0]["file_bytes"][1]
        seconds = sum(each["processor_seconds"] for each in group) / len(group)
        table.append(
            f"| {row} | {len(group)} | {mean['accuracy']:.2f} | {100 * mean['zeros']:.1f} | {size:,} | "
            f"{mean['times_faster']:.2f} | {seconds:.0f} |"
        )
        axes.barh(-place, mean["accuracy"], color="tab:blue" if "obs" in row or "sparsegpt" in row else "tab:gray")
        axes.annotate(f"{mean['accuracy']:.2f}", (mean["accuracy"], -place), (3, -3), textcoords="offset points")
    axes.set_yticks([-place for place in range(len(grouped))], [*grouped])
    axes.axvline(91.73, color="black", linewidth=0.8)
    axes.set(xlabel="CIFAR-10 test accuracy of ResNet-20, % (line: dense, 91.73)", xlim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "weights.svg", metadata={"Date": None})
    page = HERE / "README.md"
    start, end = "<!-- table: studies/pruning weights -->\n", "<!-- end of table -->"
    head, _, rest = page.read_text().partition(start)
    page.write_text(head + start + "\n".join(table) + "\n" + end + rest.partition(end)[2])


def main() -> None:
    """Measure the rows that are missing, or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    parser.add_argument("--draw", action="store_true", help="only draw from weights.json")
    options = parser.parse_args()
    out, rows = Console(), json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    torch.set_num_threads(1)
    known = {(each["row"], each["seed"]) for each in rows}
    for row in () if options.draw else options.rows or ROWS:
        if (row, options.seed) in known:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", attar.AttarWarning)
            rows.append(measure(row, options.seed))
        table = show.plain_table("row", ">accuracy", ">zeros", ">bytes", ">times faster")
        last = rows[-1]
        cells = (f"{last['accuracy']:.2f}", f"{last['zeros']:.1%}", f"{last['file_bytes'][1]:,}")
        table.add_row(row, *cells, f"{last['times_faster']:.2f}")
        out.print(table)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows)


if __name__ == "__main__":
    main()
