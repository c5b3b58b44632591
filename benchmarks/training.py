"""What a step of training costs: plain, with a teacher, with 4-bit grids, beside other libraries; what a teacher costs.

    python benchmarks/training.py [--json] [--quick] [--rounds N] [--part ...] [--precision ...] [--layout ...]
    python benchmarks/training.py --draw benchmarks/training.json

Steps: ResNet-20 at batch 128 on images of CIFAR-10's size, through the stage a recipe runs (``finetune``), SGD:

- plain: cross-entropy;
- taught: and the divergence from a second ResNet-20, which runs forward in the same precision;
- quantized: and 4-bit weights, a scale a channel, and 4-bit activations at every site, their ranges watched.

Peers: ResNet-20 and the student S3 of ``studies/polino2018``, cross-entropy, 4-bit weights with a scale a channel and
nothing else rounded, by LSQ here, by torchao and by Brevitas (the extra ``[bench]``; one that is not installed is left
out, and said to be): see :mod:`peer_torchao` and :mod:`peer_brevitas`. All train in the same loop.

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
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from attar._src.artifact.writer import pack
from attar._src.core.errors import DataError
from attar._src.core.registry import load_object
from attar._src.data.cifar10 import Cifar10
from attar._src.data.preprocessing import find_preprocessing
from attar._src.deploy.checkpoint import read_state
from attar._src.methods.finetune import Finetune
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.teachers import cache
from attar._src.methods.teachers.teacher import CachedTeacher, DeployedTeacher, LiveTeacher, live_teacher
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.runtime.session import Session
from attar._src.train.augment import Crop, Flip
from attar._src.train.batch import Batch
from attar._src.train.feed import ArrayFeed, preprocessor
from attar._src.train.fit import TrainingJob, fit
from attar._src.train.malloc import keep_freed_memory
from attar._src.train.optimizer import Sgd
from attar._src.train.plan import TrainingPlan
from attar._src.train.precision import channels_last
from attar._src.train.store import CheckpointStore
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo
from attar._src.work.context import Context, Teacher, TrainingContext
from attar._src.work.learner import Learner
from training_tables import draw, show
from turns import Training, Turns, fabric_of, figures, in_turns, ratio, trained

BATCH = 128
PARTS = ("steps", "peers", "forwards")
HERE = Path(__file__).parent
NETWORKS = dict.fromkeys(("resnet20", "resnet56"), "examples/resnet.py") | {"s3": "studies/polino2018/models.py"}
SGD = Sgd(lr=1e-4)
LSQ = {"name": "lsq", "bits": 4}
#: Peer -> its package, and what prepares a module for it.
PEERS = {
    "torchao": ("torchao", "peer_torchao.py:learned"),
    "torchao PT2E": ("torchao", "peer_torchao.py:exported"),
    "Brevitas": ("brevitas", "peer_brevitas.py:learned"),
}
STAGES: dict[str, dict[str, Any]] = {
    "plain": {"objective": ({"name": "cross_entropy"},)},
    "taught": {"objective": ({"name": "kl", "teacher": "teacher", "weight": 0.9}, {"name": "cross_entropy"})},
    "quantized": {"constraints": ({"name": "quantize", "bits": 4, "activations": 4},)},
}
STAGES["quantized"] |= STAGES["taught"]


def module(network: str, seed: int = 0) -> nn.Module:
    """Return a network as it starts."""
    torch.manual_seed(seed)
    made: nn.Module = load_object(f"{HERE.parent / NETWORKS[network]}:{network}")()
    weights = Path(os.environ.get("ATTAR_DATA", "")) / "weights" / f"cifar10_{network}.safetensors"
    if weights.is_file():
        made.load_state_dict(read_state(weights, made), strict=False)
    return made


def learner(network: str, layout: str = "contiguous", seed: int = 0) -> Learner:
    """Return a network as stages take it."""
    made = module(network, seed)
    captured = capture(made, (torch.randn(2, 3, 32, 32),))
    held = Learner(made, captured, deploy_graph(made, captured))
    if layout == "channels_last":
        channels_last(made)
    return held


def images(count: int) -> ArrayFeed:
    """Return training examples, those of CIFAR-10 or random ones."""
    try:
        found = Cifar10().load("", "train")
        assert found.y is not None
        x, y = found.x[:count], found.y[:count]
    except DataError:
        random = np.random.default_rng(0)
        x, y = random.integers(0, 256, (count, 3, 32, 32), np.uint8), random.integers(0, 10, count)
    augment = (Crop(), Flip())
    return ArrayFeed((x,), y, batch=BATCH, prepare=preprocessor(find_preprocessing("cifar10")), augment=augment)


def context(feed: Turns, fabric: Fabric, teachers: Mapping[str, Teacher], folder: Path) -> TrainingContext:
    """Return what a run would lend a stage: no validation, no log."""
    return TrainingContext(
        fabric=fabric,
        feed=lambda _: feed,
        validation=None,
        metric=lambda *_: 0.0,
        metric_name="none",
        teachers=teachers,
        calibration=CalibrationInputs((feed.batch.inputs,)),
        seed=0,
        store=CheckpointStore(folder),
        log=lambda _: None,
    )


def stage(network: str, layout: str, options: Mapping[str, Any]) -> Training:
    """Return a training of a network by the stage a recipe runs."""
    student = learner(network, layout)
    taught = any("teacher" in term for term in options.get("objective", ()))
    known = {"teacher": learner("resnet20", layout, seed=1)} if taught else {}

    def train(feed: Turns, fabric: Fabric, folder: Path) -> None:
        lent = context(feed, fabric, {name: live_teacher(each, fabric) for name, each in known.items()}, folder)
        Finetune(epochs=1, optimizer=SGD, **options).run(student, lent)

    return train


def peer(network: str, layout: str, prepare: Callable[[nn.Module, Tensor], nn.Module], batch: Batch) -> Training:
    """Return a training of a network as a peer prepares it, in the loop that stages train in."""
    prepared, targets = prepare(module(network), batch.inputs[0]), batch.targets
    assert targets is not None
    if layout == "channels_last":
        channels_last(prepared)

    def train(feed: Turns, fabric: Fabric, folder: Path) -> None:
        job = TrainingJob(
            program=prepared,
            loss=lambda outputs, *_: {"loss": functional.cross_entropy(outputs, targets)},
            extra=nn.ModuleList(),
            before_step=lambda *_: None,
            sync=lambda _: None,
            evaluate=dict,
            state=dict,
            load=lambda _: None,
        )
        plan = TrainingPlan(epochs=1, optimizer=SGD, clip=None)
        fit(job, plan, feed, fabric, seed=0, store=CheckpointStore(folder), log=lambda _: None, what="peer")

    return train


def steps(precision: str, layout: str, batch: Batch, rounds: int, folder: Path) -> dict[str, Any]:
    """Time a step of each stage in one precision and layout."""
    trainings = {name: stage("resnet20", layout, options) for name, options in STAGES.items()}
    times = trained(trainings, precision, batch, rounds, folder, f"{precision} {layout}")
    rows = {name: figures(row, times["taught"]) for name, row in times.items()}
    return {"precision": precision, "layout": layout, "rounds": rounds, "steps": rows}


def beside(network: str, precision: str, layout: str, batch: Batch, rounds: int, folder: Path) -> dict[str, Any]:
    """Time a step of LSQ and of each peer that is installed."""
    trainings = {"plain": stage(network, layout, {}), "lsq": stage(network, layout, {"constraints": (LSQ,)})}
    for name, (package, prepare) in PEERS.items():
        if find_spec(package):
            trainings[name] = peer(network, layout, load_object(f"{HERE / prepare}"), batch)
    times = trained(trainings, precision, batch, rounds, folder, f"{network} {precision} {layout}")
    rows = {name: figures(row, times["plain"]) | {"lsq": ratio(times["lsq"], row)} for name, row in times.items()}
    return {"network": network, "precision": precision, "layout": layout, "rounds": rounds, "steps": rows}


def teachers(batch: Batch, feed: ArrayFeed, folder: Path) -> dict[str, Teacher]:
    """Return a ResNet-56 as every kind of teacher, the reference first."""
    whole, last = learner("resnet56"), learner("resnet56", "channels_last")
    full, half = fabric_of("32-true"), fabric_of("bf16-mixed")
    floating = whole.deployed()
    rounded = PostTrainingQuantize(bits=8, activations=8).run(floating, Context(CalibrationInputs((batch.inputs,))))
    files = [
        Session(pack(piece.contents(FileInfo())), threads=torch.get_num_threads()) for piece in (floating, rounded)
    ]
    # What a look-up costs does not depend on who was asked.
    asked = LiveTeacher(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), full)
    every, some = (
        cache.build_cache(asked, first(feed, count), folder / f"{count}.safetensors", variants=variants)
        for count, variants in ((2048, None), (16384, 8))
    )
    return {
        "PyTorch bf16": live_teacher(whole, half),
        "PyTorch fp32": live_teacher(whole, full),
        "PyTorch bf16, channels last": live_teacher(last, half),
        "PyTorch fp32, channels last": live_teacher(last, full),
        "file fp32": DeployedTeacher(files[0]),
        "file int8": DeployedTeacher(files[1]),
        "cache, 162 variants": CachedTeacher(every, asked),
        "cache, 8 variants": CachedTeacher(some, asked),
    }


def first(feed: ArrayFeed, count: int) -> ArrayFeed:
    """Return a feed of the first ``count`` examples."""
    return ArrayFeed(tuple(x[:count] for x in feed.inputs), None, prepare=feed.prepare, augment=feed.augment)


def forwards(feed: ArrayFeed, rounds: int, folder: Path) -> dict[str, Any]:
    """Time what each kind of teacher takes for a batch."""
    index = torch.randperm(2048, generator=torch.Generator().manual_seed(0))[:BATCH]
    batch = feed.at(index, torch.zeros_like(index))
    made = teachers(batch, feed, folder)

    def run(teacher: Teacher) -> Callable[[], Tensor]:
        chosen = torch.randint(162, (BATCH,), generator=torch.Generator().manual_seed(0))
        if isinstance(teacher, CachedTeacher) and teacher.cache.variant is not None:
            chosen = teacher.cache.variant[index, chosen % teacher.cache.variant.shape[1]]
        asked = Batch(batch.inputs, batch.targets, index, chosen)
        return lambda: teacher.outputs(asked)

    times = in_turns([run(teacher) for teacher in made.values()], rounds, "teachers")
    rows = {name: figures(times[:, column], times[:, 0]) for column, name in enumerate(made)}
    return {"model": "ResNet-56", "rounds": rounds, "teachers": rows}


def main() -> None:
    """Time everything and print tables, or JSON."""
    parser = argparse.ArgumentParser(description="What a step of training costs, and what a teacher costs.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--quick", action="store_true", help="five rounds")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of each case")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="what to time")
    parser.add_argument("--precision", nargs="+", default=["bf16-mixed", "32-true"], help="as Fabric calls them")
    parser.add_argument("--layout", nargs="+", default=["contiguous", "channels_last"])
    parser.add_argument("--draw", type=Path, metavar="JSON", help="only draw what --json printed, as .svg beside it")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text()), options.draw.with_suffix(".svg"))
        return
    rounds = 5 if options.quick else options.rounds
    # As a run does. Without it the times are those of fetching memory anew, which differ from process to process.
    keep_freed_memory()
    feed = images(16384)
    index = torch.arange(BATCH)
    batch = feed.at(index, torch.zeros_like(index))
    pairs = [(precision, layout) for precision in options.precision for layout in options.layout]
    packages = list(dict.fromkeys(package for package, _ in PEERS.values()))
    there = [package for package in packages if find_spec(package)]
    found: dict[str, Any] = {
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("attar", "torch", *there)},
        "absent": [package for package in packages if package not in there],
        "brevitas_jit": os.environ.get("BREVITAS_JIT", "0") == "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        if "steps" in options.part:
            found["steps"] = [steps(*pair, batch, rounds, at / "-".join(pair)) for pair in pairs]
        if "peers" in options.part:
            cases = [(network, *pair) for network in ("resnet20", "s3") for pair in pairs]
            found["peers"] = [beside(*case, batch, rounds, at / "-".join(case)) for case in cases]
        if "forwards" in options.part:
            found["forwards"] = forwards(feed, rounds, at)
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        show(found, Console(width=max(100, Console().width)))


if __name__ == "__main__":
    main()
