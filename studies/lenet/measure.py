"""Measure the committed files of this study on the MNIST test images, without PyTorch.

    python studies/lenet/measure.py            measures, prints, writes results.json, figure.svg and the table
    python studies/lenet/measure.py --draw     writes figure.svg and the table again from results.json

The published figures beside them are those of the papers; none was measured here.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from rich.console import Console

import attar
from attar._src.artifact.inspect import inspect_artifact
from attar._src.cli import show
from attar._src.data.registry import load_dataset
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.measure.latency import interleave

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
#: File -> the network it is of.
FILES = {"lenet5": "LeNet-5", "lenet_300_100": "LeNet-300-100"}
#: Network -> method -> bytes and test error in per cent, as published; sizes of weights alone, without a graph.
PUBLISHED = {
    "LeNet-5": {"FP32": (1_720_000, 0.80), "Deep Compression": (44_000, 0.74)},
    "LeNet-300-100": {"FP32": (1_070_000, 1.64), "Deep Compression": (27_000, 1.58)},
}


def measure() -> dict[str, Any]:
    """Verify, evaluate and describe every file, and time them interleaved."""
    test = load_dataset("mnist", "test")
    sessions = {name: attar.Session(HERE / f"{name}.attar", threads=1) for name in FILES}
    image = np.zeros((1, 1, 28, 28), np.float32)
    times = interleave([partial(session.run, image) for session in sessions.values()])
    found = {}
    for (name, session), time in zip(sessions.items(), times, strict=True):
        session.artifact.verify()
        size, accuracy = inspect_artifact(session.artifact), evaluate_accuracy(session, test.x, test.y)
        found[name] = {
            "network": FILES[name],
            "sha256": session.artifact.sha256,
            "error_percent": round(100 * (1 - accuracy.accuracy), 4),
            "wrong": accuracy.examples - accuracy.correct,
            "examples": accuracy.examples,
            "file_bytes": size["file_bytes"],
            "graph_bytes": size["graph_bytes"],
            "weights_bytes": size["weights_bytes"],
            "overhead_bytes": size["overhead_bytes"],
            "parameters": size["parameters"],
            "nonzero": sum(tensor["nonzero"] for tensor in size["tensors"]),
            "bits_per_weight": size["bits_per_weight"],
            "times_smaller": 4 * size["parameters"] / size["file_bytes"],
            "median_ms": time.median_ms,
        }
    return found


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table."""
    lines = []
    for name, entry in results.items():
        for method, (size, error) in PUBLISHED[entry["network"]].items():
            lines.append([f"{entry['network']}, {method}, published", f"{error:.2f}", f"{size:,}", "", "", ""])
        lines.append(
            [
                f"{entry['network']}, `{name}.attar`",
                f"{entry['error_percent']:.2f}",
                f"{entry['file_bytes']:,}",
                f"{entry['bits_per_weight']:.3f}",
                f"{100 * entry['nonzero'] / entry['parameters']:.2f}",
                f"{entry['times_smaller']:.0f}",
            ]
        )
    return lines


HEADS = ["", "test error %", "bytes", "bits per weight", "non-zero %", "times smaller than FP32"]


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the error against the bytes, beside what was published."""
    # The same figures give the same bytes.
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    figure, both = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axes, entry in zip(both, results.values(), strict=True):
        points = {**PUBLISHED[entry["network"]], "Attar": (entry["file_bytes"], entry["error_percent"])}
        for method, (size, error) in points.items():
            ours = method == "Attar"
            axes.plot(size / 1000, error, "o" if ours else "s", color="#1b6ca8" if ours else "#999999")
            axes.annotate(method, (size / 1000, error), (5, 4), textcoords="offset points")
        axes.set(xlabel="KB (log)", ylabel="MNIST test error, %", xscale="log", title=entry["network"])
        axes.set_xlim(2, 6000)
        axes.set_ylim(0, 2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def fill(results: dict[str, Any], page: Path) -> None:
    """Write the table between the marks of a page."""
    table = [
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
        *(f"| {' | '.join(line)} |" for line in rows(results)),
    ]
    start, end = "<!-- table: studies/lenet -->\n", "<!-- end of table -->"
    head, _, rest = page.read_text().partition(start)
    page.write_text(head + start + "\n".join(table) + "\n" + end + rest.partition(end)[2])


def main() -> int:
    """Measure, print, and write the JSON, the figure and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="only draw and fill in from results.json")
    if not parser.parse_args().draw:
        RESULTS.write_text(json.dumps(measure(), indent=2) + "\n")
    results = json.loads(RESULTS.read_text())
    table = show.plain_table(HEADS[0], *(f">{head}" for head in HEADS[1:]))
    for line in rows(results):
        table.add_row(*line)
    Console().print(table)
    draw(results, HERE / "figure.svg")
    fill(results, HERE / "README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
