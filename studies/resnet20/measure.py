"""Measure the three files of this study, and ONNX Runtime's own static quantization beside them, in one run.

    python studies/resnet20/measure.py            measures, prints, writes results.json, figure and tables
    python studies/resnet20/measure.py --latency  only times again
    python studies/resnet20/measure.py --draw     writes figure.svg and the tables again from results.json

The peer is ``onnxruntime.quantization.quantize_static`` of the same network: exported by PyTorch, prepared by
``quant_pre_process``, QDQ, uint8 activations, int8 weights per channel, calibrated (min-max, its default) on the same
training images. Accuracy is on the 10,000 test images, once, of the decoded files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import onnxruntime
import torch
from matplotlib import pyplot
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console

import attar
from attar._src.artifact.inspect import inspect_artifact
from attar._src.cli import show
from attar._src.core.registry import load_object
from attar._src.data.preprocessing import parse_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.build_module import build_module
from attar._src.deploy.parity import compare_outputs
from attar._src.measure.accuracy import AccuracyMetric, evaluate_accuracy
from attar._src.measure.latency import interleave
from attar._src.measure.runner import open_runner
from attar._src.runtime.preprocess import preprocess

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
FILES = ("w8a8", "w4", "w4a8")
EXAMPLES = 2048


class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    """Hands the calibration images to ONNX Runtime, 64 at a time."""

    def __init__(self, name: str, x: np.ndarray[Any, Any]) -> None:
        self._batches = iter({name: x[i : i + 64]} for i in range(0, len(x), 64))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None."""
        return next(self._batches, None)


def peer(module: torch.nn.Module, x: np.ndarray[Any, Any], folder: Path) -> tuple[Path, Path]:
    """Write the network as FP32 ONNX and as quantized by ONNX Runtime; return both paths."""
    plain, ready, small = folder / "fp32.onnx", folder / "prepared.onnx", folder / "quantize_static.onnx"
    example = (torch.from_numpy(x[:2]),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(
            module.eval(), example, plain, dynamo=True, dynamic_shapes=dynamic, external_data=False, verbose=False
        )
    quant_pre_process(plain, ready)
    name = onnxruntime.InferenceSession(plain).get_inputs()[0].name
    quantize_static(
        ready,
        small,
        Reader(name, x),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return plain, small


def accuracy_of(path: Path, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    """Return the accuracy of an ONNX file."""
    runner = open_runner(path)
    scores = [next(iter(runner.run({runner.inputs[0]: x[i : i + 250]}).values())) for i in range(0, len(x), 250)]
    return AccuracyMetric()(np.concatenate(scores), y)


def measure(threads: list[int], rounds: int | None, known: dict[str, Any] | None) -> dict[str, Any]:
    """Return everything this study states; accuracy and parity are taken from ``known`` where it is given."""
    root = Path(os.environ["ATTAR_DATA"])
    network = load_object(f"{HERE.parent.parent / 'examples' / 'resnet.py'}:resnet20")
    weights = root / "weights" / "cifar10_resnet20.safetensors"
    module, preprocessing = build_module(network, {}, weights), parse_preprocessing("imagenet")
    assert preprocessing is not None
    learn, test = load_dataset("cifar10", "train").subset(EXAMPLES, 0), load_dataset("cifar10", "test")
    assert test.y is not None
    x = preprocess(preprocessing, test.x)
    results: dict[str, Any] = {"files": {}, "latency": [], "onnxruntime": onnxruntime.__version__}
    if known is not None:
        stale = [
            name
            for name in FILES
            if known["files"][name]["sha256"] != attar.open_artifact(HERE / f"{name}.attar").sha256
        ]
        if stale:
            raise SystemExit(f"{', '.join(stale)} changed since results.json was written; measure everything again")
        results["files"] = known["files"]
    results["processor"] = platform.processor() or platform.machine()
    results["cores"] = os.cpu_count()
    for name in FILES if known is None else ():
        path = HERE / f"{name}.attar"
        session = attar.Session(path)
        module_again = attar.load(path, into=build_module(network, {}, weights)).double()
        batches = [(torch.from_numpy(x[i : i + 250]),) for i in range(0, len(x), 250)]
        size = inspect_artifact(session.artifact)
        results["files"][name] = {
            "accuracy": evaluate_accuracy(session, test.x, test.y).accuracy,
            "examples": len(test),
            "file_bytes": size["file_bytes"],
            "bits_per_weight": size["bits_per_weight"],
            "sha256": session.artifact.sha256,
            "integer_layers": f"{len(session.integer_layers())} of {len(session.layers)}",
            "parity": compare_outputs(session, module_again, batches, name).as_dict(),
        }
    with tempfile.TemporaryDirectory() as folder:
        plain, small = peer(module, preprocess(preprocessing, learn.x), Path(folder))
        for name, path in (("fp32.onnx", plain), ("quantize_static.onnx", small)) if known is None else ():
            results["files"][name] = {
                "accuracy": accuracy_of(path, x, test.y),
                "examples": len(test),
                "file_bytes": path.stat().st_size,
            }
        for count in threads:
            for batch in (1, 32):
                paths = [small, *(HERE / f"{name}.attar" for name in FILES), plain]
                runners = [open_runner(path, threads=count) for path in paths]
                runs = [partial(runner.run, {runner.inputs[0]: x[:batch]}) for runner in runners]
                times = interleave(runs, rounds=rounds)
                found = {path.name: vars(time) for path, time in zip(paths, times, strict=True)}
                results["latency"].append({"threads": count, "batch": batch, "models": found})
    return results


def plain_tables(results: dict[str, Any]) -> None:
    """Print what was measured for people."""
    out = Console()
    table = show.plain_table("file", ">accuracy", ">bytes", ">bits per weight", ">equal predictions", "in integers")
    for name, entry in results["files"].items():
        bits, parity = entry.get("bits_per_weight"), entry.get("parity")
        table.add_row(
            name,
            f"{entry['accuracy']:.2%}",
            f"{entry['file_bytes']:,}",
            f"{bits:.2f}" if bits else "",
            f"{parity['equal_predictions']:.2%}" if parity else "",
            entry.get("integer_layers", ""),
        )
    out.print(table)
    times = show.plain_table(
        "threads", "batch", "model", ">median ms", ">p99 ms", ">spread", ">ratio to quantize_static"
    )
    for run in results["latency"]:
        for name, time in run["models"].items():
            times.add_row(
                str(run["threads"]),
                str(run["batch"]),
                name,
                f"{time['median_ms']:.3f}",
                f"{time['p99_ms']:.3f}",
                f"{time['spread']:.1%}",
                f"{time['ratio']:.3f}",
            )
    out.print(times)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw accuracy against bytes, and latency against the peer's."""
    # The same figures give the same bytes.
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, entry in results["files"].items():
        ours = name in FILES
        left.plot(entry["file_bytes"] / 1000, 100 * entry["accuracy"], "o" if ours else "s", color=_colour(name))
        left.annotate(name, (entry["file_bytes"] / 1000, 100 * entry["accuracy"]), (5, -3), textcoords="offset points")
    left.set(xlabel="file, KB (log)", ylabel="CIFAR-10 test accuracy, %", xscale="log", title="accuracy against bytes")
    left.set_xlim(80, 2500)
    cases = [f"batch {run['batch']}\n{run['threads']} thread{'s' * (run['threads'] > 1)}" for run in results["latency"]]
    names = list(results["latency"][0]["models"])
    for i, name in enumerate(names):
        ratios = [run["models"][name]["ratio"] for run in results["latency"]]
        label = name.removesuffix(".attar")
        right.bar([j + 0.16 * (i - 2) for j in range(len(cases))], ratios, 0.15, label=label, color=_colour(label))
    right.axhline(1, color="black", linewidth=0.5)
    right.set_xticks(range(len(cases)), cases)
    right.set(ylabel="median latency / quantize_static", title="latency, interleaved in one run")
    right.set_ylim(0, 3.2)
    right.legend(fontsize=7, ncols=3, loc="upper center")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def fill(results: dict[str, Any], page: Path) -> None:
    """Write the table of ``results`` between the marks of a page."""
    single = {run["batch"]: run["models"] for run in results["latency"] if run["threads"] == 1}
    rows = [
        "| file | top-1 % | file bytes | bits per weight | equal predictions % | latency ratio, batch 1 | batch 32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in results["files"].items():
        ratios = [single[batch][f"{name}.attar" if name in FILES else name]["ratio"] for batch in (1, 32)]
        bits, parity = entry.get("bits_per_weight"), entry.get("parity")
        cells = [
            name,
            f"{100 * entry['accuracy']:.2f}",
            f"{entry['file_bytes']:,}",
            f"{bits:.2f}" if bits else "",
            f"{100 * parity['equal_predictions']:.2f}" if parity else "",
            *(f"{ratio:.3f}" for ratio in ratios),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    start, end = "<!-- table: studies/resnet20 -->\n", "<!-- end of table -->"
    head, _, rest = page.read_text().partition(start)
    page.write_text(head + start + "\n".join(rows) + "\n" + end + rest.partition(end)[2])


def _colour(name: str) -> str:
    colours = {"w8a8": "#1b6ca8", "w4": "#2a9d5c", "w4a8": "#e07a1f", "quantize_static.onnx": "#777777"}
    return colours.get(name, "#bbbbbb")


def main() -> int:
    """Measure, print, and write the JSON and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts to time with")
    parser.add_argument("--rounds", type=int, help="runs of each model; about five seconds' worth by default")
    parser.add_argument("--latency", action="store_true", help="only time again; the rest is kept from results.json")
    parser.add_argument("--draw", action="store_true", help="only draw the figure from results.json")
    options = parser.parse_args()
    if not options.draw:
        known = json.loads(RESULTS.read_text()) if options.latency else None
        results = measure(options.threads, options.rounds, known)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    results = json.loads(RESULTS.read_text())
    plain_tables(results)
    draw(results, HERE / "figure.svg")
    for page in (HERE / "README.md", HERE.parent.parent / "README.md"):
        fill(results, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
