"""Channels removed from the public ResNets without training, beside Torch-Pruning.

    python benchmarks/pruning.py [NETWORK ...] [--target 2.1 2.6] [--by NAME ...]
    python benchmarks/pruning.py --json              prints what pruning.json has, without measuring
    python benchmarks/pruning.py --table             prints its table

Results are added to ``pruning.json``; those that are there already are left alone, so that a killed run goes on.

Every row has so many times fewer multiplications, by the lowest scores of all channels; gradients are of the same 1,024
training images; then batch-norms are computed again on 2,048 training images (``momentum=None``), and the 10,000 test
images of CIFAR-10 are read once. "Inner" rows remove channels inside the residual blocks alone: Torch-Pruning does not
follow the padded shortcuts of these networks, and its pruned network fails where the others may go (``fails`` in
``pruning.json``). Its Taylor score is the sum of ``|w dL/dw|``, Attar's ``gradient_weight``; it scores again in each of
200 steps. Torch-Pruning is not in the extra ``[bench]``: ``pip install --no-deps torch-pruning``.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import attar
from attar._src.data.registry import load_dataset
from runtime import machine
from trained import Task, resnet

RESULTS = Path(__file__).resolve().parent / "pruning.json"
NETWORKS = ("resnet20", "resnet56")
SCORED, NORMED, BATCH = 1024, 2048, 128
#: By -> tool, score, whether the residual stream keeps its channels.
ROWS: dict[str, tuple[str, str, bool]] = {
    "Attar taylor": ("attar", "taylor", False),
    "Attar gradient_weight": ("attar", "gradient_weight", False),
    "Attar l2": ("attar", "l2", False),
    "Attar taylor, inner": ("attar", "taylor", True),
    "Attar gradient_weight, inner": ("attar", "gradient_weight", True),
    "Attar l2, inner": ("attar", "l2", True),
    "Torch-Pruning taylor, inner": ("torch_pruning", "taylor", True),
    "Torch-Pruning l2, inner": ("torch_pruning", "l2", True),
    "Torch-Pruning taylor": ("torch_pruning", "taylor", False),
    "random": ("attar", "random", False),
}


class Images:
    """Preprocessed training images with labels, and the test of a network."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.x = torch.from_numpy(task.calibration["x"])
        labels = load_dataset("cifar10", "train").y
        assert labels is not None
        self.y = torch.from_numpy(labels[: len(self.x)])


def measure(images: Images, target: float, by: str) -> dict[str, Any]:
    """Return multiplications, parameters and the test accuracy of a row, or why it fails."""
    tool, score, inner = ROWS[by]
    net = copy.deepcopy(images.task.module)
    dense = macs(net, images.x[:1])
    try:
        made = _ours(net, images, target, score, inner) if tool == "attar" else _peer(net, images, target, score, inner)
        after = macs(made, images.x[:1])
    except Exception as error:  # noqa: BLE001 - a tool may raise anything
        return {"fails": f"{type(error).__name__}: {error}"[:200]}
    _reestimate(made, images.x[:NORMED])
    return {
        "times_fewer": dense / after,
        "parameters": sum(each.numel() for each in made.parameters()),
        "right": _accuracy(made, images.task),
    }


def _ours(net: nn.Module, images: Images, target: float, score: str, inner: bool) -> nn.Module:
    data = (images.x[:SCORED], images.y[:SCORED])
    exclude = [name for name, _ in _residual(net)] if inner else []
    return attar.prune(net, data, macs=1 - 1 / target, score=score, exclude=exclude, examples=SCORED).module


def _peer(net: nn.Module, images: Images, target: float, score: str, inner: bool) -> nn.Module:
    if score == "taylor":
        loss = functional.cross_entropy(net(images.x[:SCORED]), images.y[:SCORED])
        loss.backward()
    fixed = [layer for name, layer in net.named_modules() if name == "linear"]
    fixed += [layer for _, layer in _residual(net)] if inner else []
    most = macs(net, images.x[:1]) / target
    reached: Callable[[nn.Module], bool] = lambda made: macs(made, images.x[:1]) <= most  # noqa: E731
    made: nn.Module = import_module("peer_torch_pruning").pruned(net, images.x[:1], score, fixed, reached)
    return made


def _residual(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers that write to the residual stream."""
    return [
        (n, each) for n, each in net.named_modules() if n == "conv1" or (n.startswith("layer") and n[-5:] == "conv2")
    ]


def macs(net: nn.Module, x: torch.Tensor) -> int:
    """Return the multiplications of convolutions and linear layers for one example, counted while it runs."""
    found: list[int] = []

    def count(layer: Any, _: Any, output: torch.Tensor) -> None:
        found.append(output[0].numel() * layer.weight[0].numel())

    layers = [each for each in net.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    handles = [each.register_forward_hook(count) for each in layers]
    try:
        with torch.no_grad():
            net.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return sum(found)


def _reestimate(net: nn.Module, x: torch.Tensor) -> None:
    norms = [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        net.train()
        for part in x.split(BATCH):
            net(part)
    net.eval()


def _accuracy(net: nn.Module, task: Task) -> float:
    x, found = torch.from_numpy(task.test["x"]), []
    with torch.no_grad():
        for start in range(0, len(x), 250):
            part = slice(start, start + 250)
            found.append(torch.from_numpy(task.reduced(net.eval()(x[part]).numpy(), part)))
    return task.score(torch.cat(found).numpy())


def table(found: list[dict[str, Any]]) -> str:
    """Return the test accuracies as Markdown, a row for each tool and score."""
    columns = dict.fromkeys((each["network"], each["target"]) for each in found)
    heads = " | ".join(f"{network}, {target:g} times fewer" for network, target in columns)
    lines = [f"| right, % | {heads} |", "|---|" + "---:|" * len(columns)]
    for by in ROWS:
        mine = {(each["network"], each["target"]): each for each in found if each["by"] == by}
        cells = [mine.get(column, {}) for column in columns]
        words = ["fails" if "fails" in each else f"{each['right']:.2f}" if each else "-" for each in cells]
        lines += [f"| {by} | {' | '.join(words)} |"] if mine else []
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {'; '.join(NETWORKS)}; all by default")
    parser.add_argument("--target", type=float, nargs="+", default=[2.1, 2.6], help="times fewer multiplications")
    parser.add_argument("--by", nargs="+", metavar="NAME", default=[*ROWS], help=f"of {'; '.join(ROWS)}")
    parser.add_argument("--json", action="store_true", help="only print what pruning.json has")
    parser.add_argument("--table", action="store_true", help="only print its table")
    given = parser.parse_args()
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text())["channels"] if RESULTS.exists() else []
    known = {(each["network"], each["target"], each["by"]) for each in found}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for network in () if given.json or given.table else given.networks or NETWORKS:
        images = Images(resnet(network, calibrated=max(SCORED, NORMED)))
        for target in given.target:
            for by in given.by:
                missing = ROWS[by][0] == "torch_pruning" and find_spec("torch_pruning") is None
                if missing:
                    print(f"{by}: torch-pruning is not installed", file=sys.stderr)
                elif (network, target, by) not in known:
                    found.append({"network": network, "target": target, "by": by} | measure(images, target, by))
                    _keep(found)
    print(RESULTS.read_text() if given.json else table(found))


def _keep(found: list[dict[str, Any]]) -> None:
    peers = {"torch-pruning": version("torch-pruning")} if find_spec("torch_pruning") else {}
    told = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    told |= {"machine": machine(), "packages": told.get("packages", {}) | peers, "channels": found}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(found[-1]), file=sys.stderr)


if __name__ == "__main__":
    main()
