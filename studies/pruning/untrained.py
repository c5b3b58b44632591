"""Channels removed from the public ResNets, nothing trained: with the weights as they are, and made up for.

    python studies/pruning/untrained.py [--only resnet20]     adds to untrained.json, writes the table into channels.md
    python studies/pruning/untrained.py --table               writes the table

512 training images calibrate, with labels for ``taylor`` alone. Accuracy is that of the module on the 10,000 test
images, read once for a row. ``ATTAR_DATA`` names the folder with CIFAR-10 and the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import attar
from attar._src.core.registry import load_object
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.checkpoint import read_state
from attar._src.runtime.preprocess import preprocess

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "untrained.json"
EXAMPLES = 512
#: Network -> the share of its multiplications that is removed.
SHARES = {"resnet20": 0.5, "resnet56": 0.524}
SCORES = ("random", "l2", "taylor", "wanda", "obs")


def images(split: str, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images as the networks read them, and labels."""
    how, data = find_preprocessing("imagenet"), load_dataset("cifar10", split)
    assert how is not None
    return torch.from_numpy(preprocess(how, data.x[:count])), torch.from_numpy(data.y[:count]).long()


def network(name: str) -> nn.Module:
    """Return a public network."""
    net: nn.Module = load_object(f"{HERE.parents[1] / 'examples' / 'resnet.py'}:{name}")()
    net.load_state_dict(read_state(Path(os.environ["ATTAR_DATA"]) / "weights" / f"cifar10_{name}.safetensors", net))
    return net.eval()


def accuracy(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the per cent of predictions that are right."""
    with torch.no_grad():
        right = torch.cat([net.eval()(each).argmax(1) for each in x.split(500)]) == y
    return round(100 * float(right.float().mean()), 2)


def measure(name: str, score: str) -> dict[str, Any]:
    """Return a row."""
    net, (x, y), test = network(name), images("train", EXAMPLES), images("test")
    row: dict[str, Any] = {"network": name, "score": score, "macs": SHARES[name]}
    for update in ("none", "obs"):
        begun = time.process_time()
        labels = y if score == "taylor" else None
        made = attar.prune(net, x, macs=SHARES[name], score=score, update=update, labels=labels)
        row[f"{update}_seconds"] = round(time.process_time() - begun, 1)
        row[update] = accuracy(made.module, *test)
    return row


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table into channels.md."""
    lines = [
        "| network | multiplications removed | score | as it is, % | made up for, % | processor time, s |",
        "|---|---:|---|---:|---:|---:|",
        *(
            f"| {row['network']} | {100 * row['macs']:.1f} % | `{row['score']}` | {row['none']:.2f} | {row['obs']:.2f} "
            f"| {row['obs_seconds']:.0f} |"
            for row in rows
        ),
    ]
    start, end = "<!-- table: studies/pruning untrained -->", "<!-- end of table -->"
    page = HERE / "channels.md"
    before, _, rest = page.read_text().partition(start)
    page.write_text(f"{before}{start}\n" + "\n".join(lines) + f"\n{end}" + rest.partition(end)[2])


def main() -> None:
    """Measure rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*SHARES], action="append", help="a network; repeatable")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for name in () if given.table else given.only or SHARES:
        for score in SCORES:
            row = measure(name, score)
            print(json.dumps(row), flush=True)
            rows = [each for each in rows if (each["network"], each["score"]) != (name, score)] + [row]
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    write(rows)


if __name__ == "__main__":
    main()
