"""Makes the golden files of the present format version; run by hand, once for each version, never by a test.

    python -m tests.golden.make

Files that are there already are left alone: what a released version wrote stays readable for ever.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from tests import samples
from tests.attacks.fuzz import every_kind
from tests.runtime import reference
from tests.runtime.reference import file_of, node
from tests.samples import on_steps, quantized

from attar._src.artifact.layout import MAJOR, MINOR
from attar._src.artifact.manifest import Binding, Part
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.float16 import round_up
from attar._src.core.scheme import PerTensor, Scheme
from attar._src.core.tensors import Quantized

HERE = Path(__file__).parent
LISTED = 64  # tensors of more elements are told by the SHA-256 of their bytes


def summary(artifact: Artifact) -> dict[str, Any]:
    """Return what a file means, as JSON values."""
    record = artifact.graph_record()
    return {
        "parameters": artifact.manifest.parameters,
        "aliases": artifact.manifest.aliases,
        "tensors": {name: values(artifact.tensor(name).dense()) for name in artifact.names},
        "initializers": {binding.to: values(artifact.initializer(binding)) for binding in record.bindings},
        "activations": [activation.model_dump(mode="json") for activation in record.activations],
        **({"dynamic": list(record.dynamic)} if record.dynamic else {}),
        "nodes": [[node.op_type, *node.input, "->", *node.output] for node in artifact.graph().graph.node],
        "manifest": artifact.manifest.model_dump(
            mode="json",
            include={"folds", "preprocessing", "task", "class_names", "metric", "recipe", "versions", "licence"},
        ),
    }


def values(array: np.ndarray) -> dict[str, Any]:
    """Return an array's type, shape and values."""
    array = np.ascontiguousarray(array)
    little = array.astype(array.dtype.newbyteorder("<"))
    told = (
        {"values": array.ravel().tolist()} if array.size <= LISTED else {"sha256": hashlib.sha256(little).hexdigest()}
    )
    return {"dtype": str(array.dtype), "shape": list(array.shape), **told}


def contents():
    """A tensor of every kind, one that is coded in lanes, one in chunks, and two with coded scales."""
    rng = np.random.default_rng(10)
    four = Scheme(bits=4, granularity=PerTensor())
    lanes = np.clip(np.rint(rng.normal(scale=3, size=(60, 1000))), -7, 7).astype(np.int8)
    chunks = (rng.random((540, 1000)) < 0.001).astype(np.int8)
    more = {
        "lanes": Quantized(lanes, np.array([0.125], np.float32), four),
        "chunks": Quantized(chunks, np.array([0.5], np.float32), Scheme(bits=2, granularity=PerTensor())),
        "short": replace(quantized(rng, (64, 3)), scale=round_up((2.0 ** rng.uniform(-3, 0, 64)).astype(np.float32))),
        "wide": replace(quantized(rng, (64, 3)), scale=round_up((2.0 ** rng.uniform(-9, 0, 64)).astype(np.float32))),
    }
    base = every_kind()
    return replace(base, tensors={**base.tensors, **more})


def recurrent() -> Artifact:
    """A dynamic LSTM in both directions, a dynamic GRU behind it, and a dynamic linear layer on its last state."""
    rng = np.random.default_rng(11)
    width, hidden = 12, 8

    def weight(rows, columns):
        return samples.quantized(rng, (rows, columns), bits=8)

    tensors = {
        **{f"lstm.{kind}{way}": weight(4 * hidden, n) for way in (0, 1) for kind, n in (("w", width), ("r", hidden))},
        "lstm.b": rng.normal(scale=0.3, size=(2, 8 * hidden)).astype(np.float32),
        "gru.w": weight(3 * hidden, 2 * hidden),
        "gru.r": weight(3 * hidden, hidden),
        "gru.b": rng.normal(scale=0.3, size=(1, 6 * hidden)).astype(np.float32),
        "head": weight(3, hidden),
    }

    def both(name, columns):
        parts = tuple(Part(tensor=f"{name}{way}", start=0, stop=4 * hidden * columns) for way in (0, 1))
        return Binding(to=name, parts=parts, shape=(2, 4 * hidden, columns))

    lstm = {"hidden_size": hidden, "direction": "bidirectional"}
    return file_of(
        [
            node("Transpose", "x", "steps", perm=[1, 0, 2]),
            node("LSTM", "steps lstm.w lstm.r lstm.b", "apart", **lstm),
            node("Transpose", "apart", "beside", perm=[0, 2, 1, 3]),
            node("Reshape", "beside joined", "wide"),
            helper.make_node(
                *("GRU", ["wide", "gru.w", "gru.r", "gru.b"], ["", "final"], "node_final"),
                hidden_size=hidden,
                linear_before_reset=1,
            ),
            node("Squeeze", "final first", "last"),
            node("Gemm", "last head", "y", transB=1),
        ],
        tensors,
        dynamic=("node_apart", "node_final", "node_y"),
        bindings=(
            both("lstm.w", width),
            both("lstm.r", hidden),
            *(Binding(to=f"gru.{kind}", shape=(1, 3 * hidden, n)) for kind, n in (("w", 2 * hidden), ("r", hidden))),
            *(Binding(to=name) for name in ("lstm.b", "gru.b", "head")),
        ),
        constants={"joined": np.array([0, 0, 2 * hidden]), "first": np.array([0])},
        x=("batch", "time", width),
        y=("batch", 3),
    )


def example(artifact: Artifact) -> dict[str, Any]:
    """Return an input and the output that the file means by it (``docs/format.md``)."""
    x = np.random.default_rng(12).normal(size=(3, 5, 12)).astype(np.float32)
    return {"x": x.tolist(), "y": reference.run(artifact, {"x": x})["y"].tolist()}


def smooth():
    """Tensors whose codes resemble their neighbours: kernels, a wide row of 8 bits, a mask."""
    rng = np.random.default_rng(13)

    def codes(shape: tuple[int, ...], spread: float, top: int) -> np.ndarray:
        values = rng.normal(size=shape)
        for axis in range(1, len(shape)):
            values = values + np.roll(values, 1, axis)
        return np.clip(np.rint(spread * values), -top, top).astype(np.int8)

    four, eight = (Scheme(bits=bits, granularity=PerTensor()) for bits in (4, 8))
    scale = np.array([0.125], np.float32)
    held = {
        "kernels": Quantized(codes((32, 16, 3, 3), 1.0, 7), scale, four),
        "plane": Quantized(codes((20, 14 * 14), 12.0, 127), scale, eight),
        "sparse": Quantized(codes((60, 100), 0.2, 7), scale, four),
    }
    base = every_kind()
    return replace(base, tensors={**base.tensors, **held})


def pruned():
    """Tensors of 8 bits most of whose codes are zero, which contexts hold apart, beside smooth ones."""
    rng = np.random.default_rng(14)
    scheme, scale = Scheme(bits=8, granularity=PerTensor()), np.array([0.125], np.float32)
    # Rows and columns differ in how much of them is left, so that neighbours tell.
    left = np.outer(rng.random(48) ** 3, rng.random(300) ** 3) * 4
    codes = np.where(rng.random((3, 48, 300)) < left, np.rint(rng.normal(size=(3, 48, 300)) * 30), 0).clip(-127, 127)
    held = {f"pruned{i}": Quantized(each.astype(np.int8), scale, scheme) for i, each in enumerate(codes)}
    base = every_kind()
    return replace(base, tensors={**base.tensors, **held})


def main() -> None:
    """Write the files that are missing."""
    version = f"v{MAJOR}_{MINOR}"
    made = {
        version: pack(contents(), coder="rans"),
        f"{version}_huffman": pack(every_kind(), coder="huffman"),
        f"{version}_context": pack(smooth(), coder="context"),
        f"{version}_apart": pack(pruned(), coder="context"),
        f"{version}_steps": pack(on_steps(), coder="rans"),
        f"{version}_recurrent": bytes(recurrent().data),
    }
    for name, data in made.items():
        path = HERE / f"{name}.attar"
        if path.exists():
            print(f"{path.name} is there already and stays")
            continue
        path.write_bytes(data)
        artifact = open_artifact(data)
        meant = summary(artifact) | ({"example": example(artifact)} if name.endswith("_recurrent") else {})
        path.with_suffix(".json").write_text(json.dumps(meant, indent=1, sort_keys=True) + "\n")
        print(f"{path.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
