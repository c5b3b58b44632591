"""Weights of 4 bits beside activations in floating point: float32, packed, or both (``Session(weights=...)``).

    OMP_NUM_THREADS=1 python benchmarks/packed_weights.py [--json]

Stacks of linear layers, and the operator ``MatMulNBits`` alone at 2, 4 and 8 bits, on one thread. In each round all
forms have a turn; a ratio is the median over the rounds. Cold start and peak memory are those of fresh processes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

import attar
from attar._src.measure.cold import cold_start
from attar._src.measure.latency import interleave
from attar._src.runtime.builder import external
from attar._src.runtime.engine import Engine
from attar._src.runtime.packed.blocks import PACKED
from attar._src.runtime.session import WeightForm

FORMS: tuple[WeightForm, ...] = ("float32", "packed", "auto")
#: Width and number of layers.
STACKS = ((512, 8), (768, 8), (1024, 8), (2048, 4))
ROWS = (1, 2, 8, 32, 128)
WIDTHS = (256, 1024, 4096)
SECONDS = 1.0


def stack(width: int, layers: int, path: Path) -> Path:
    """Write a file of linear layers of random 4-bit weights."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
    attar.quantize(net, torch.randn(16, width), bits=4, tolerance=None).save(path)
    return path


def of_files(folder: Path) -> list[dict[str, Any]]:
    """Return latency, cold start and memory of each stack in each form."""
    found = []
    for width, layers in STACKS:
        path = stack(width, layers, folder / f"{width}.attar")
        cold = [cold_start(path, [([1, width], "<f4")], weights=form) for form in FORMS]
        sessions = [attar.Session(path, threads=1, weights=form) for form in FORMS]
        memory = [(each.peak_memory_bytes or 0) / 1e6 for each in cold]
        opening = [each.cold_start_ms for each in cold]
        for rows in ROWS:
            x = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
            times = interleave([partial(session.run, x) for session in sessions], seconds=SECONDS)
            figures = {"median_ms": [each.median_ms for each in times], "ratio": [each.ratio for each in times]}
            found.append({"stack": f"{layers} x {width}", "rows": rows, **figures, "cold": opening, "memory": memory})
    return found


def of_operators() -> list[dict[str, Any]]:
    """Return the time of ``MatMulNBits`` over that of a product in float32, by bits, width and rows."""
    found = []
    for width in WIDTHS:
        engines = [_engine(width, bits) for bits in (32, 2, 4, 8)]
        for rows in (1, 8, 128):
            feed = {"x": np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)}
            times = interleave([partial(engine.run, feed) for engine in engines], rounds=20)
            found.append({"width": width, "rows": rows, "ratio": [each.ratio for each in times[1:]]})
    return found


def _engine(width: int, bits: int, block: int = 128) -> Engine:
    rng, info = np.random.default_rng(0), helper.make_tensor_value_info
    if bits == 32:
        weights: dict[str, Any] = {"w": rng.normal(size=(width, width)).astype(np.float32)}
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    else:
        codes = rng.integers(0, 256, (width, width // block, block * bits // 8)).astype(np.uint8)
        weights = {"w": codes, "scale": np.ones((width, width // block), np.float32)}
        sizes = {"K": width, "N": width, "bits": bits, "block_size": block, "accuracy_level": 1}
        node = helper.make_node(PACKED, ["x", *weights], ["y"], domain="com.microsoft")
        node.attribute.extend(helper.make_attribute(*each) for each in sizes.items())
    x, y = (info(name, TensorProto.FLOAT, ["rows", width]) for name in "xy")
    graph = helper.make_graph([node], "product", [x], [y], [external(name, array) for name, array in weights.items()])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return Engine(model.SerializeToString(), weights=weights, threads=1)


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print("| layers | rows | float32, ms | packed | auto | cold start, ms | memory, MB |")
    print("|---|---:|---:|---:|---:|---|---|")
    for row in found["files"]:
        first = row["rows"] == ROWS[0]
        cold, memory = (" / ".join(f"{each:.0f}" for each in row[name]) if first else "" for name in ("cold", "memory"))
        _, packed, auto = row["ratio"]
        milliseconds = row["median_ms"][0]
        print(
            f"| {row['stack']} | {row['rows']} | {milliseconds:.3g} | {packed:.2f} | {auto:.2f} | {cold} | {memory} |"
        )
    print("\n| width | rows | 2 bits | 4 bits | 8 bits |\n|---:|---:|---:|---:|---:|")
    for row in found["operators"]:
        print(f"| {row['width']} | {row['rows']} | " + " | ".join(f"{each:.2f}" for each in row["ratio"]) + " |")
    print(f"\nload {found['load']}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"operators": of_operators(), "files": of_files(Path(folder))}
    found["load"] = [before, os.getloadavg()[0]]
    print(json.dumps(found, indent=1)) if asked.json else show(found)


if __name__ == "__main__":
    main()
