"""Accuracy against bytes after training: solvers, reconstruction, and bits under a target, on the public ResNets.

    python studies/post-training/measure.py [ROW ...] [--net resnet20] [--seed 0]     adds rows to results.json
    python studies/post-training/measure.py --draw                      writes figure.svg and the table again

Each row sees 1,024 images of CIFAR-10's training set, drawn by the seed, without their labels. First and last layer
have 8 bits, but where bits are chosen under a target. Accuracy is on the 10,000 test images, once a row, of the decoded
file on ONNX Runtime, one thread. Rows that are in results.json already are left alone.
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
from matplotlib.ticker import ScalarFormatter
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
RESULTS = HERE / "results.json"
EXAMPLES = 1024
ENDS = {"conv1": 8, "linear": 8}
IMPROVED: dict[str, Any] = {"augment": ("crop", "flip"), "steps": 100, "network_steps": 400}

#: What is left to gain where activations have few bits: layers rounded again for what they read, then the network, with
#: images of which parts are another image's, as the network is sure of nearly all training images.
MIXED = ("crop", "flip", "cutmix")
SOFTER: dict[str, Any] = {"reround": True, "steps": 0, "network_steps": 150, "lr": 1e-3, "augment": MIXED}

ACTIVATIONS: dict[str, Any] = {
    "bits": 4,
    "activations": 4,
    "scales": "gptq",
    "observer": "mse",
    "overrides": ENDS,
    "activation_overrides": ENDS,
}

#: Row -> options of ``attar.quantize``.
ROWS: dict[str, dict[str, Any]] = {
    **{
        f"w{bits} {solver}": {"bits": bits, "scales": solver, "overrides": ENDS}
        for bits in (4, 3, 2)
        for solver in ("absmax", "mse", "gptq")
    },
    **{
        f"w{bits} reconstruct": {
            "bits": bits,
            "scales": "gptq",
            "symmetric": bits > 2,
            "overrides": ENDS,
            "reconstruct": IMPROVED,
        }
        for bits in (4, 3, 2)
    },
    "w2 reconstruct 400 steps": {
        "bits": 2,
        "scales": "gptq",
        "symmetric": False,
        "overrides": ENDS,
        "reconstruct": {**IMPROVED, "steps": 400},
    },
    "w4a4 gptq": ACTIVATIONS,
    "w4a4 reconstruct": {**ACTIVATIONS, "reconstruct": SOFTER},
    **{f"{count // 1000} KB": {"max_bytes": count, "scales": "gptq"} for count in (95_000, 70_000, 290_000, 215_000)},
    **{f"w4 gptq rate {rate:g}": {"bits": 4, "scales": "gptq", "rate": rate} for rate in (0.003, 0.01)},
    "w4 gptq rate 0.01 reconstruct": {"bits": 4, "scales": "gptq", "rate": 0.01, "reconstruct": IMPROVED},
}
#: Network -> its accuracy in floating point.
FLOATING = {"resnet20": 91.73, "resnet56": 93.39}
#: Accuracy from which a row is in the figure.
SHOWN = 84.0
#: What rows with few bytes are compared with: parameters of the public ResNet-20 coded by the standard's program
#: (nncodec 2.1.3, quantization included, no graph), accuracy on the first 2,000 test images: bytes, percent.
STANDARD = ((127_562, 91.6), (98_632, 90.2), (71_308, 88.0))


def measure(net: str, row: str, seed: int) -> dict[str, Any]:
    """Return bytes, accuracy and processor time of one row."""
    root = Path(os.environ["ATTAR_DATA"])
    network = load_object(f"{HERE.parent.parent / 'examples' / 'resnet.py'}:{net}")
    module = build_module(network, {}, root / "weights" / f"cifar10_{net}.safetensors")
    preprocessing = parse_preprocessing("imagenet")
    assert preprocessing is not None
    learn, test = load_dataset("cifar10", "train").subset(EXAMPLES, seed), load_dataset("cifar10", "test")
    begun = time.process_time()
    result = attar.quantize(
        module,
        torch.from_numpy(preprocess(preprocessing, learn.x)),
        examples=EXAMPLES,
        preprocessing=preprocessing,
        task="classification",
        tolerance=None,
        **ROWS[row],
    )
    with tempfile.TemporaryDirectory() as folder:
        report = result.save(Path(folder) / "m.attar")
        seconds = time.process_time() - begun
        found = evaluate_accuracy(attar.Session(Path(folder) / "m.attar", threads=1), test.x, test.y)
    return {
        "net": net,
        "row": row,
        "seed": seed,
        "accuracy": round(100 * found.accuracy, 2),
        "file_bytes": report["file_bytes"],
        "processor_seconds": round(seconds, 1),
    }


def peers(net: str) -> dict[str, list[tuple[int, float]]]:
    """Return tool -> bytes and accuracy of its rows on the same weights (benchmarks/quantization.py)."""
    measured = json.loads((HERE.parent.parent / "benchmarks" / "quantization.json").read_text())["results"]
    found: dict[str, list[tuple[int, float]]] = {}
    for each in measured:
        ours = each["by"] == "NNC" or each["by"].startswith("Attar")
        if each["network"].replace("-", "").lower() == net and not ours and each.get("figure", 0) > SHOWN:
            found.setdefault(each["by"], []).append((each["bytes"], each["figure"]))
    return found


def draw(rows: list[dict[str, Any]]) -> None:
    """Write figure.svg and print the table."""
    table = [
        "| network | row | seeds | accuracy, % | file, bytes | processor time, s |",
        "|---|---|---:|---:|---:|---:|",
    ]
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in sorted(rows, key=lambda each: (each["net"], [*ROWS].index(each["row"]), each["seed"])):
        grouped.setdefault((each["net"], each["row"]), []).append(each)
    figure, panels = pyplot.subplots(2, 1, figsize=(7, 8.5))
    for (net, row), group in grouped.items():
        accuracy, size, seconds = (
            sum(each[key] for each in group) / len(group) for key in ("accuracy", "file_bytes", "processor_seconds")
        )
        table.append(f"| {net} | {row} | {len(group)} | {accuracy:.2f} | {size:,.0f} | {seconds:.0f} |")
        if accuracy > SHOWN:
            axes = panels[[*FLOATING].index(net)]
            axes.plot(size / 1000, accuracy, "o", color="tab:blue")
            axes.annotate(
                row, (size / 1000, accuracy), textcoords="offset points", xytext=(1, 4), fontsize=7, rotation=40
            )
    panels[0].plot([b / 1000 for b, _ in STANDARD], [a for _, a in STANDARD], "s--", color="tab:orange", label="NNC")
    for axes, (net, floating) in zip(panels, FLOATING.items(), strict=True):
        for (by, points), marker in zip(peers(net).items(), "^vD<>P", strict=False):
            sizes, figures = ([each[place] for each in points] for place in (0, 1))
            axes.plot([each / 1000 for each in sizes], figures, marker, color="tab:red", alpha=0.6, label=by)
        axes.axhline(floating, color="gray", linewidth=0.8, label="floating point")
        axes.set_title(net, fontsize=9)
        axes.margins(y=0.16)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(ScalarFormatter())
        axes.set_xlabel("KB: files, blue; parameters (NNC); codes packed, or ONNX files (other tools)")
        axes.set_ylabel("CIFAR-10 test accuracy, %")
        axes.legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "attar"
    figure.savefig(HERE / "figure.svg", metadata={"Date": None})
    Console(soft_wrap=True).print("\n".join(table), markup=False)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of: {', '.join(ROWS)}; all by default")
    parser.add_argument("--net", default="resnet20", choices=("resnet20", "resnet56"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true", help="only draw what results.json has")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", attar.AttarWarning)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    known = {(each["net"], each["row"], each["seed"]) for each in rows}
    for row in () if given.draw else given.rows or ROWS:
        if (given.net, row, given.seed) not in known:
            rows.append(measure(given.net, row, given.seed))
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            show.say("measured", json.dumps(rows[-1]))
    draw(rows)


if __name__ == "__main__":
    main()
