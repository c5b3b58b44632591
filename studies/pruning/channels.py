"""Structures of ResNet-56 with 2.1 and 2.6 times fewer multiplications: channels or blocks removed, and what they take.

    python studies/pruning/channels.py [--only NAME ...]     adds to channels.json
    python studies/pruning/channels.py --table               prints its table

Time depends on shapes alone: nothing is trained here, and scores are sizes of weights (channels) and similarities
(blocks). Files in floating point and with 8 bits for weights and activations are timed in turns with the untouched
network, on one thread. ``ATTAR_DATA`` names the folder with CIFAR-10 and the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import attar
from attar._src.core.registry import load_object
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.checkpoint import read_state
from attar._src.measure.latency import interleave
from attar._src.runtime.preprocess import preprocess
from attar.extend import CompressedModel, FileInfo, pack, trace

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "channels.json"
EXAMPLES, SECONDS = 256, 10.0
#: Row -> options of ``attar.prune``.
ROWS: dict[str, dict[str, Any]] = {
    f"{name}, {times}x": {"macs": 1 - 1 / times, **options}
    for times in (2.1, 2.6)
    for name, options in {
        "channels": {},
        "channels, multiples of 4": {"round_to": 4},
        "channels, multiples of 8": {"round_to": 8},
        "channels, multiples of 16": {"round_to": 16},
        "blocks": {"unit": "layer"},
    }.items()
}


def untouched() -> tuple[nn.Module, torch.Tensor]:
    """Return the public ResNet-56, and training images."""
    net: nn.Module = load_object(f"{HERE.parents[1] / 'examples' / 'resnet.py'}:resnet56")()
    net.load_state_dict(read_state(Path(os.environ["ATTAR_DATA"]) / "weights" / "cifar10_resnet56.safetensors", net))
    how = find_preprocessing("imagenet")
    assert how is not None
    return net.eval(), torch.from_numpy(preprocess(how, load_dataset("cifar10", "train").x[:EXAMPLES]))


def opened(net: nn.Module, x: torch.Tensor, integers: bool, folder: Path) -> attar.Session:
    """Return the file of a network, opened on one thread."""
    path = folder / "net.attar"
    if integers:
        attar.quantize(net, x, bits=8, activations=8, tolerance=None).save(path)
    else:
        path.write_bytes(pack(CompressedModel.of(trace(net, (x[:2],))).contents(FileInfo()), coder="raw"))
    return attar.Session(path, threads=1)


def measure(net: nn.Module, x: torch.Tensor, options: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a row: what is left, and how many times faster it is than the untouched network."""
    result = attar.prune(net, x, examples=EXAMPLES, **options)
    before, after = result.figures["macs"]
    found: dict[str, Any] = {"times_fewer": before / after, "parameters": result.figures["parameters"][1]}
    for integers in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            sessions = [opened(each, x, integers, Path(folder)) for each in (net, result.module)]
        for batch in (1, 32):
            runs = [partial(session.run, x[:batch].numpy()) for session in sessions]
            dense, pruned = interleave(runs, seconds=SECONDS)
            row = {"dense_ms": dense.median_ms, "ms": pruned.median_ms, "times_faster": 1 / pruned.ratio}
            found[f"{'int8' if integers else 'float32'}, batch {batch}"] = row
    return found


def table(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    kinds = [f"{kind}, batch {batch}" for kind in ("float32", "int8") for batch in (1, 32)]
    lines = ["| removed | fewer multiplications | parameters | " + " | ".join(kinds) + " |", "|---|" + "---:|" * 6]
    for name, row in found.items():
        if "fails" in row:
            lines.append(f"| {name} | {row['fails']} |" + " |" * 5)
            continue
        cells = [f"{row[kind]['times_faster']:.2f}x" for kind in kinds]
        lines.append(f"| {name} | {row['times_fewer']:.2f}x | {row['parameters']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[*ROWS], help=f"of {'; '.join(ROWS)}")
    parser.add_argument("--table", action="store_true", help="only print the table")
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not given.table:
        net, x = untouched()
        for name in given.only:
            if name not in found:
                try:
                    found[name] = measure(net, x, ROWS[name])
                except attar.SpecError as error:
                    found[name] = {"fails": str(error)}
                print(json.dumps({name: found[name]}), file=sys.stderr)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
