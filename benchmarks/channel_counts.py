"""Time against the number of channels, which tells what ``round_to`` of ``attar prune`` is good for on a machine.

    python benchmarks/channel_counts.py [--channels 24 25 26 28 30 32] [--size 16] [--batch 1 32] [--seconds 3]
    python benchmarks/channel_counts.py --json > benchmarks/channel_counts.json

Four convolutions 3x3 with ReLU, all from C to C channels, on images of ``size`` by ``size``, as Attar's files run
them on one thread: in floating point, and with 8 bits for weights and activations. All counts of a row are timed in
turns. Beside the milliseconds stands what a multiplication takes, relative to the largest number of channels: where
that jumps between C and C + 1, what remains should be a multiple. A network has more than convolutions; time its
file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import attar
from attar._src.measure.latency import interleave
from attar.extend import CompressedModel, FileInfo, pack, trace
from runtime import machine

DEPTH = 4


def network(channels: int) -> nn.Module:
    """Return the convolutions, with random weights."""
    torch.manual_seed(channels)
    layers = [(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()) for _ in range(DEPTH)]
    return nn.Sequential(*(each for pair in layers for each in pair)).eval()


def session(channels: int, size: int, integers: bool, folder: Path) -> attar.Session:
    """Return the file of the network, opened on one thread."""
    net, x = network(channels), torch.randn(8, channels, size, size)
    path = folder / f"{channels}.attar"
    if integers:
        attar.quantize(net, x, bits=8, activations=8, tolerance=None).save(path)
    else:
        path.write_bytes(pack(CompressedModel.of(trace(net, (x,))).contents(FileInfo()), coder="raw"))
    return attar.Session(path, threads=1)


def measure(channels: Sequence[int], size: int, batch: int, integers: bool, seconds: float) -> list[dict[str, Any]]:
    """Return the milliseconds of each number of channels, and those of a multiplication relative to the last."""
    with tempfile.TemporaryDirectory() as folder:
        opened = [session(each, size, integers, Path(folder)) for each in channels]
    inputs = [torch.randn(batch, each, size, size).numpy() for each in channels]
    runs = [partial(one.run, x) for one, x in zip(opened, inputs, strict=True)]
    found = [latency.median_ms for latency in interleave(runs, seconds=seconds)]
    each_one = [milliseconds / count**2 for milliseconds, count in zip(found, channels, strict=True)]
    return [
        {"channels": count, "ms": milliseconds, "per_multiplication": own / each_one[-1]}
        for count, milliseconds, own in zip(channels, found, each_one, strict=True)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[*range(24, 33), 40, 48], help="numbers of channels")
    parser.add_argument("--size", type=int, default=16, help="height and width of the images")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="images at once")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    rows = {
        f"{'int8' if integers else 'float32'}, batch {batch}": measure(
            sorted(given.channels), given.size, batch, integers, given.seconds
        )
        for integers in (False, True)
        for batch in given.batch
    }
    if given.json:
        print(json.dumps({"machine": machine(), "size": given.size, "rows": rows}, indent=1))
        return
    print("| channels | " + " | ".join(rows) + " |\n|---:|" + "---:|" * len(rows))
    for at, count in enumerate(sorted(given.channels)):
        cells = [f"{own[at]['ms']:.3f} ms ({own[at]['per_multiplication']:.2f})" for own in rows.values()]
        print(f"| {count} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
