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
from tests.attacks.fuzz import every_kind
from tests.samples import on_steps, quantized

from attar._src.artifact.layout import MAJOR, MINOR
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


def main() -> None:
    """Write the files that are missing."""
    version = f"v{MAJOR}_{MINOR}"
    made = (
        (version, "rans", contents()),
        (f"{version}_huffman", "huffman", every_kind()),
        (f"{version}_steps", "rans", on_steps()),
    )
    for name, coder, what in made:
        path = HERE / f"{name}.attar"
        if path.exists():
            print(f"{path.name} is there already and stays")
            continue
        data = pack(what, coder=coder)
        path.write_bytes(data)
        path.with_suffix(".json").write_text(json.dumps(summary(open_artifact(data)), indent=1, sort_keys=True) + "\n")
        print(f"{path.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
