"""The main job on real data: train a small network on digits, compress it, and measure the file against FP32.

Everything in the table but the training is measured on decoded ``.attar`` files, by the runtime that will serve them.
"""

import json
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

import attar
from attar.artifact.inspect import describe
from attar.cli import show
from attar.data import load
from attar.measure.accuracy import evaluate
from attar.measure.latency import interleave
from attar.runtime import preprocess
from digits import train

OUT = Path("runs/demo")


def main() -> int:
    """Train, compress, verify, measure; print the table and write ``report.json`` beside the files."""
    out = Console()
    OUT.mkdir(parents=True, exist_ok=True)
    learn, test = load("digits", "train"), load("digits", "test")
    assert learn.preprocessing is not None
    assert learn.y is not None
    x = preprocess(learn.preprocessing, learn.x)
    out.print(f"training a convolutional network on {len(learn):,} digits ...")
    net = train(x, learn.y)

    out.print("compressing to 4-bit weights and 8-bit activations ...")
    quantize = partial(
        attar.quantize,
        net,
        x,
        preprocessing=learn.preprocessing,
        task=learn.task,
        metric=learn.metric,
        class_names=learn.class_names,
    )
    files = {"FP32": OUT / "fp32.attar", "W4A8": OUT / "digits.attar"}
    quantize(keep=["*"]).save(files["FP32"])
    report = quantize(bits=4, activations=8).save(files["W4A8"])

    sessions = {name: attar.Session(path, threads=1) for name, path in files.items()}
    image = x[:1]
    latency = interleave([partial(session.run, image) for session in sessions.values()])
    table = show.table("", ">test accuracy", ">parameters", ">bits per weight", ">file bytes", ">latency ms")
    measured = {}
    for (name, session), time in zip(sessions.items(), latency, strict=True):
        session.artifact.verify()
        size, found = describe(session.artifact), evaluate(session, test.x, test.y)
        table.add_row(
            name,
            f"{found.accuracy:.2%}",
            f"{size['parameters']:,}",
            f"{size['bits_per_weight']:.2f}",
            f"{size['file_bytes']:,}",
            f"{time.median_ms:.3f}",
        )
        measured[name] = {
            "accuracy": found.accuracy,
            "examples": found.examples,
            "parameters": size["parameters"],
            "bits_per_weight": size["bits_per_weight"],
            "file_bytes": size["file_bytes"],
            "latency": time.as_dict(),
        }
    out.print()
    out.print(table)
    small, large = measured["W4A8"], measured["FP32"]
    out.print(
        f"\n{large['file_bytes'] / small['file_bytes']:.1f} times smaller as a whole file, "
        f"{large['latency']['median_ms'] / small['latency']['median_ms']:.2f} times as fast (batch 1, one thread); "
        f"{len(sessions['W4A8'].integer_layers())} of {len(sessions['W4A8'].layers)} layers ran in integers; "
        f"the decoded file predicts what PyTorch does on {report['parity']['equal_predictions']:.2%} of "
        f"{report['parity']['examples']} digits."
    )
    (OUT / "demo.json").write_text(json.dumps(measured, indent=2) + "\n")
    out.print(f"Files in {OUT}: try `.venv/bin/attar inspect {files['W4A8']}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
