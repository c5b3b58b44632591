"""The whole curve of bytes and accuracy under `max_bytes`, beside the standard's program, on the public ResNet-20.

    python studies/post-training/curve.py [ROW ...] [--seed 0]      adds rows to curve.json
    python studies/post-training/curve.py --draw                    writes curve.svg and the table again

As `measure.py`, with `scales="gptq"` and bits and rates of its own for every weight. What `attar.quantize` does for
each number of bytes is done once for all: calibration, solutions at every level, sensitivities. Accuracy is that of the
decoded file, on the 10,000 test images and on the first 2,000, on which the standard was measured; settings were chosen
on other training images. Rows that are in curve.json already are left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot
from rich.console import Console

import attar
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.cli import show
from attar._src.core.registry import load_object
from attar._src.data.preprocessing import parse_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.build_module import build_module
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.methods.allocate.allocate import Allocator
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.allocate.own_bits import allocate, tried_levels
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.model.trace import trace
from attar._src.runtime.preprocess import preprocess
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context
from measure import EXAMPLES, STANDARD

HERE = Path(__file__).parent
RESULTS = HERE / "curve.json"
BATCH = 64
FIRST = 2000
#: Bytes of the files: three quarters of the standard's, and fewer.
SIZES = (95_700, 83_272, 74_000, 53_500, 40_000, 30_000)
IMPROVED = Reconstruct(augment=("crop", "flip"), steps=400, network_steps=400)
#: Row -> bytes, and the stage behind.
ROWS: dict[str, tuple[int, Reconstruct | None]] = {
    **{f"{size / 1000:.4g} KB": (size, None) for size in SIZES},
    **{f"{size / 1000:.4g} KB reconstruct": (size, IMPROVED) for size in SIZES},
}


class Curve:
    """ResNet-20 at every level, with what each layer costs and gives."""

    def __init__(self, seed: int) -> None:
        root = Path(os.environ["ATTAR_DATA"])
        network = load_object(f"{HERE.parent.parent / 'examples' / 'resnet.py'}:resnet20")
        module = build_module(network, {}, root / "weights" / "cifar10_resnet20.safetensors")
        preprocessing = parse_preprocessing("imagenet")
        assert preprocessing is not None
        x = torch.from_numpy(preprocess(preprocessing, load_dataset("cifar10", "train").subset(EXAMPLES, seed).x))
        model = CompressedModel.of(trace(module, (x[:2],)))
        inputs = {"main": CalibrationInputs(tuple((part,) for part in x.split(BATCH)))}
        use = FileInfo(preprocessing, "classification")
        self.context = Context(inputs["main"], seed, use)
        stage = PostTrainingQuantize(scales="gptq", bits=BitTarget(max_bytes=SIZES[0]))
        names, levels = stage.chosen(model), tried_levels(SOLVERS["gptq"].rates)
        solved = stage.choice(model, use, names, inputs, levels)

        def at(record: dict[str, Any], chosen: Any) -> CompressedModel:
            return replace(solved(chosen), record=(record,))

        about, labelled = {"calibration_examples": EXAMPLES}, Labelled(task=use.task)
        self.of = lambda target: Allocator(
            model,
            inputs,
            inputs,
            names,
            levels,
            partial(at, {**stage.describe(), **about, "bits": target.describe()}),
            use,
            "auto",
            stage.describe(),
            labelled,
            self.table,
            seed,
        )
        self.table = None
        self.table = self.of(BitTarget(max_bytes=SIZES[0])).measured

    def measure(self, row: str, seed: int) -> dict[str, Any]:
        """Return bytes, accuracy and processor time of one row."""
        size, stage = ROWS[row]
        target = BitTarget(max_bytes=size)
        begun = time.process_time()
        made = allocate(self.of(target), target)
        predicted, came = _bytes_of(made.notes["bits"])
        if stage is not None:
            made = stage.run(made, self.context)
        data = pack(shorten_numbers(made).contents(self.context.use or FileInfo()))
        seconds = time.process_time() - begun
        session, test = attar.Session(open_artifact(data), threads=1), load_dataset("cifar10", "test")
        every, first = (
            evaluate_accuracy(session, test.x[:count], None if test.y is None else test.y[:count]).accuracy
            for count in (len(test), FIRST)
        )
        return {
            "row": row,
            "seed": seed,
            "accuracy": round(100 * every, 2),
            "first_2000": round(100 * first, 2),
            "file_bytes": len(data),
            "predicted_bytes": predicted,
            "allocated_bytes": came,
            "processor_seconds": round(seconds, 1),
        }


def _bytes_of(note: str) -> tuple[int, int]:
    """Return predicted and packed bytes of a note on bits."""
    words = note.split("; ")[1].replace(",", "").split()
    return int(words[0]), int(words[4])


def draw(rows: list[dict[str, Any]]) -> None:
    """Write curve.svg and print the table."""
    order = sorted(rows, key=lambda each: ([*ROWS].index(each["row"]), each["seed"]))
    table = [
        "| row | seed | accuracy, % | first 2,000, % | file, bytes | allocation: predicted, came | processor time, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in order:
        bytes_of = f"{each['predicted_bytes']:,}, {each['allocated_bytes']:,}"
        table.append(
            f"| {each['row']} | {each['seed']} | {each['accuracy']:.2f} | {each['first_2000']:.2f} | "
            f"{each['file_bytes']:,} | {bytes_of} | {each['processor_seconds']:.0f} |"
        )
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for words, improved, colour in (("gptq", False, "tab:blue"), ("gptq and reconstruct", True, "tab:green")):
        some = sorted(
            (each["file_bytes"] / 1000, each["first_2000"]) for each in rows if bool(ROWS[each["row"]][1]) == improved
        )
        if some:
            axes.plot([b for b, _ in some], [a for _, a in some], "o-", color=colour, label=f"{words}: whole files")
    standard = {"color": "tab:orange", "label": "NNC: parameters only"}
    axes.plot([b / 1000 for b, _ in STANDARD], [a for _, a in STANDARD], "s--", **standard)
    axes.set_xlabel("KB")
    axes.set_ylabel("accuracy on the first 2,000 test images, %")
    axes.set_ylim(bottom=70)
    axes.legend()
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "attar"
    figure.savefig(HERE / "curve.svg", metadata={"Date": None})
    Console(soft_wrap=True).print("\n".join(table), markup=False)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of: {', '.join(ROWS)}; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true", help="only draw what curve.json has")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", attar.AttarWarning)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    known = {(each["row"], each["seed"]) for each in rows}
    wanted = [row for row in (() if given.draw else given.rows or ROWS) if (row, given.seed) not in known]
    curve = Curve(given.seed) if wanted else None
    for row in wanted:
        assert curve is not None
        rows.append(curve.measure(row, given.seed))
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        show.say("measured", json.dumps(rows[-1]))
    draw(rows)


if __name__ == "__main__":
    main()
