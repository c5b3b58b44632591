"""What a step of training costs: plain, with a teacher, with a teacher and 4-bit grids; and what a teacher costs.

    python benchmarks/training.py [--quick] [--json] [--precision ...] [--layout ...]
    python benchmarks/training.py --draw benchmarks/training.json

Steps: ResNet-20 at batch 128 on images of CIFAR-10's size, through the stage a recipe runs (``finetune``), SGD:

- plain: cross-entropy;
- taught: and the divergence from a second ResNet-20, which runs forward in the same precision;
- quantized: and 4-bit weights, a scale a channel, and 4-bit activations at every site, their ranges watched.

Each is a training of its own; a round lets each of them make one step, in an order of its own.

Teachers: what a ResNet-56 says of one batch of 128, by each kind of teacher. Weights and images are those in
``$ATTAR_DATA`` (``weights/cifar10_resnet56.safetensors``, ``cifar-10-batches-bin``) and random where they are not
there, which costs the same.

Every figure is a median over rounds; a ratio is the median of the ratios inside each round, with their quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from lightning_fabric import Fabric
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from attar.artifact.writer import pack
from attar.core.errors import DataError
from attar.core.progress import track
from attar.core.registry import load_object
from attar.data.cifar10 import Cifar10
from attar.data.preprocessing import named
from attar.methods.distill import bank
from attar.methods.distill.teacher import Banked, Deployed, Live, live
from attar.methods.finetune import Finetune
from attar.methods.quantize.stage import Quantize
from attar.model.capture import capture
from attar.model.trace import deploy
from attar.recipe.source import read_weights
from attar.runtime.session import Session
from attar.train.augment import Crop, Flip
from attar.train.batch import Batch
from attar.train.feed import Memory, preparation
from attar.train.optimizer import Sgd
from attar.train.precision import channels_last
from attar.train.store import Store
from attar.work.context import Context, Teacher
from attar.work.learner import Learner
from attar.work.workpiece import Calibration, Use

BATCH = 128
RESNET = str(Path(__file__).parent.parent / "examples" / "resnet.py")
STAGES: dict[str, dict[str, Any]] = {
    "plain": {"objective": ({"name": "cross_entropy"},)},
    "taught": {"objective": ({"name": "kl", "teacher": "teacher", "weight": 0.9}, {"name": "cross_entropy"})},
    "quantized": {"constraints": ({"name": "quantize", "bits": 4, "activations": 4},)},
}
STAGES["quantized"] |= STAGES["taught"]


class Turns:
    """A feed of one batch over and over, one step at a time: :meth:`turn` returns when the step is done.

    Each training runs in a thread of its own, and all of them but one wait here.
    """

    examples, steps, variants, labelled = None, 1 << 30, None, True

    def __init__(self, batch: Batch) -> None:
        self.batch, self._over = batch, False
        self._asked, self._given = threading.Semaphore(0), threading.Semaphore(0)

    def start(self, pool: ThreadPoolExecutor, train: Callable[[], None]) -> None:
        """Begin a training of this feed, up to its first step."""
        self._training = pool.submit(train)
        self._training.add_done_callback(lambda _: self._asked.release())
        self._wait()

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batch whenever it is its turn."""
        while True:
            self._asked.release()
            self._given.acquire()
            if self._over:
                raise StopTraining(number)
            yield self.batch

    def once(self) -> Iterator[Batch]:
        """Yield the batch once."""
        yield self.batch

    def turn(self) -> None:
        """Let the training make one step."""
        self._given.release()
        self._wait()

    def stop(self) -> None:
        """End the training."""
        self._over = True
        self._given.release()
        self._training.exception()

    def _wait(self) -> None:
        self._asked.acquire()
        if self._training.done():
            self._training.result()


class StopTraining(Exception):
    """What ends a training that has been timed."""


def fabric_of(precision: str) -> Fabric:
    """Return a launched fabric on the CPU."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def resnet(depth: int, layout: str = "contiguous", seed: int = 0) -> Learner:
    """Return a ResNet as it starts."""
    torch.manual_seed(seed)
    module: nn.Module = load_object(f"{RESNET}:resnet{depth}")()
    weights = Path(os.environ.get("ATTAR_DATA", "")) / "weights" / f"cifar10_resnet{depth}.safetensors"
    if weights.is_file():
        module.load_state_dict(read_weights(weights), strict=False)
    captured = capture(module, (torch.randn(2, 3, 32, 32),))
    learner = Learner(module, captured, deploy(module, captured))
    if layout == "channels_last":
        channels_last(module)
    return learner


def images(count: int) -> Memory:
    """Return training examples, those of CIFAR-10 or random ones."""
    try:
        found = Cifar10().load("", "train")
        assert found.y is not None
        x, y = found.x[:count], found.y[:count]
    except DataError:
        random = np.random.default_rng(0)
        x, y = random.integers(0, 256, (count, 3, 32, 32), np.uint8), random.integers(0, 10, count)
    augment = (Crop(), Flip())
    return Memory((x,), y, batch=BATCH, prepare=preparation(named("cifar10")), augment=augment)


def in_turns(runs: Sequence[Callable[[], object]], rounds: int, what: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the milliseconds of each run in each round, ``(rounds, runs)``; two rounds before warm up."""
    order = np.random.default_rng(0)
    times = np.empty((rounds + 2, len(runs)))
    for i in track(range(rounds + 2), what):
        for j in order.permutation(len(runs)):
            start = time.perf_counter()
            runs[j]()
            times[i, j] = 1e3 * (time.perf_counter() - start)
    return times[2:]


def figures(times: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return median, spread and ratio to a reference, as the module says."""
    low, median, high = np.percentile(times, [25, 50, 75])
    ratios = np.percentile(times / reference, [25, 50, 75])
    said = {"ms": median, "spread": (high - low) / median, "ratio": ratios[1]}
    return {key: round(float(value), 4) for key, value in said.items()} | {
        "quartiles": [round(float(ratios[0]), 4), round(float(ratios[2]), 4)]
    }


def context(feed: Turns, fabric: Fabric, teacher: Teacher, folder: Path) -> Context:
    """Return what a run would lend a stage: no validation, no log."""
    return Context(
        fabric=fabric,
        feed=lambda _: feed,
        validation=None,
        metric=lambda *_: 0.0,
        metric_name="none",
        teachers={"teacher": teacher},
        calibration=Calibration((feed.batch.inputs,)),
        seed=0,
        store=Store(folder),
        log=lambda _: None,
    )


def steps(precision: str, layout: str, batch: Batch, rounds: int, folder: Path) -> dict[str, Any]:
    """Time a step of each stage in one precision and layout."""
    with ThreadPoolExecutor(len(STAGES)) as pool:
        feeds = []
        for name, terms in STAGES.items():
            feed, fabric = Turns(batch), fabric_of(precision)
            stage = Finetune(epochs=1, optimizer=Sgd(lr=1e-4), **terms)
            lent = context(feed, fabric, live(resnet(20, layout, seed=1), fabric), folder / name)
            feed.start(pool, partial(stage.run, resnet(20, layout), lent))
            feeds.append(feed)
        times = in_turns([feed.turn for feed in feeds], rounds, f"{precision} {layout}")
        for feed in feeds:
            feed.stop()
    taught = times[:, list(STAGES).index("taught")]
    rows = {name: figures(times[:, index], taught) for index, name in enumerate(STAGES)}
    return {"precision": precision, "layout": layout, "rounds": rounds, "steps": rows}


def teachers(batch: Batch, feed: Memory, folder: Path) -> dict[str, Teacher]:
    """Return a ResNet-56 as every kind of teacher, the reference first."""
    learner, last = resnet(56), resnet(56, "channels_last")
    full, half = fabric_of("32-true"), fabric_of("bf16-mixed")
    floating = learner.deployed()
    rounded = Quantize(bits=8, activations=8).run(floating, Calibration((batch.inputs,)))
    files = [Session(pack(piece.contents(Use())), threads=torch.get_num_threads()) for piece in (floating, rounded)]
    # What a look-up costs does not depend on who was asked.
    asked = Live(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), full)
    every, some = (
        bank.build(asked, first(feed, count), folder / f"{count}.safetensors", variants=variants)
        for count, variants in ((2048, None), (16384, 8))
    )
    return {
        "PyTorch bf16": live(learner, half),
        "PyTorch fp32": live(learner, full),
        "PyTorch bf16, channels last": live(last, half),
        "PyTorch fp32, channels last": live(last, full),
        "file fp32": Deployed(files[0]),
        "file int8": Deployed(files[1]),
        "bank, 162 variants": Banked(every, asked),
        "bank, 8 variants": Banked(some, asked),
    }


def first(feed: Memory, count: int) -> Memory:
    """Return a feed of the first ``count`` examples."""
    return Memory(tuple(x[:count] for x in feed.inputs), None, prepare=feed.prepare, augment=feed.augment)


def forwards(feed: Memory, rounds: int, folder: Path) -> dict[str, Any]:
    """Time what each kind of teacher takes for a batch."""
    index = torch.randperm(2048, generator=torch.Generator().manual_seed(0))[:BATCH]
    batch = feed.at(index, torch.zeros_like(index))
    made = teachers(batch, feed, folder)

    def run(teacher: Teacher) -> Callable[[], Tensor]:
        chosen = torch.randint(162, (BATCH,), generator=torch.Generator().manual_seed(0))
        if isinstance(teacher, Banked) and teacher.bank.variant is not None:
            chosen = teacher.bank.variant[index, chosen % teacher.bank.variant.shape[1]]
        asked = Batch(batch.inputs, batch.targets, index, chosen)
        return lambda: teacher.outputs(asked)

    times = in_turns([run(teacher) for teacher in made.values()], rounds, "teachers")
    rows = {name: figures(times[:, column], times[:, 0]) for column, name in enumerate(made)}
    return {"model": "ResNet-56", "rounds": rounds, "teachers": rows}


def show(found: dict[str, Any], console: Console) -> None:
    """Print two tables."""
    table = Table(title=f"a step, ResNet-20, batch {BATCH}, {found['threads']} threads: milliseconds")
    for column in ("", "plain", "taught", "quantized", "quantized / taught"):
        table.add_column(column, justify="right" if column else "left")
    for case in found["steps"]:
        rows = case["steps"]
        cells = [f"{rows[name]['ms']:.0f} ±{50 * rows[name]['spread']:.0f} %" for name in STAGES]
        table.add_row(f"{case['precision']}, {case['layout']}", *cells, _ratio(rows["quantized"]))
    console.print(table)
    table = Table(title=f"what a teacher takes for a batch of {BATCH}, {found['forwards']['model']}: milliseconds")
    for column in ("", "ms", "/ PyTorch bf16"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in found["forwards"]["teachers"].items():
        table.add_row(name, f"{row['ms']:.2f} ±{50 * row['spread']:.0f} %", _ratio(row))
    console.print(table)


def _ratio(row: dict[str, Any]) -> str:
    low, high = row["quartiles"]
    return f"{row['ratio']:.3f} ({low:.3f} to {high:.3f})"


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw both tables as bars."""
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    names = [f"{case['precision']}\n{case['layout']}" for case in found["steps"]]
    for place, stage in enumerate(STAGES):
        heights = [case["steps"][stage]["ms"] for case in found["steps"]]
        left.bar(np.arange(len(names)) + 0.27 * (place - 1), heights, 0.25, label=stage)
    left.set_xticks(range(len(names)), names, fontsize=7)
    left.set(ylabel="ms a step", title=f"ResNet-20, batch {BATCH}")
    left.legend(fontsize=8)
    rows = found["forwards"]["teachers"]
    right.barh(list(rows), [row["ms"] for row in rows.values()], color="tab:gray")
    right.axvline(rows["PyTorch bf16"]["ms"] / 4, color="tab:red", lw=1, label="a quarter of PyTorch bf16")
    right.invert_yaxis()
    right.set(xlabel="ms a batch", title=f"{found['forwards']['model']} as a teacher", xscale="log")
    right.set_xlim(left=0.05)
    right.legend(fontsize=7, loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Time everything and print tables, or JSON."""
    parser = argparse.ArgumentParser(description="What a step of training costs, and what a teacher costs.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--precision", nargs="+", default=["bf16-mixed", "32-true"], help="as Fabric calls them")
    parser.add_argument("--layout", nargs="+", default=["contiguous", "channels_last"])
    parser.add_argument("--draw", type=Path, metavar="JSON", help="only draw what --json printed, as .svg beside it")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text()), options.draw.with_suffix(".svg"))
        return
    rounds = 5 if options.quick else 30
    feed = images(16384)
    index = torch.arange(BATCH)
    batch = feed.at(index, torch.zeros_like(index))
    pairs = [(precision, layout) for precision in options.precision for layout in options.layout]
    with tempfile.TemporaryDirectory() as folder:
        measured = [steps(*pair, batch, rounds, Path(folder) / "-".join(pair)) for pair in pairs]
        asked = forwards(feed, rounds, Path(folder))
    found = {"batch": BATCH, "threads": torch.get_num_threads(), "steps": measured, "forwards": asked}
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        show(found, Console(width=max(100, Console().width)))


if __name__ == "__main__":
    main()
