"""A finished run, made by hand: small files of random weights, and a report of numbers nobody measured."""

import json

import numpy as np
from tests import samples

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.tensors import Dense, Quantized, round_to_grid

SHAPES = {"stem": (16, 1, 3, 3), "body.0.conv": (32, 16, 3, 3), "body.1.conv": (32, 32, 3, 3), "head": (10, 128)}


def weights(rng, shape):
    """Weights as training leaves them: about normal, most of them small."""
    return (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def pruned(rng, shape, bits=4, sparsity=0.6):
    """The largest weights of each channel on a grid, the others zero."""
    values = weights(rng, shape)
    values[np.abs(values) < np.quantile(np.abs(values), sparsity)] = 0
    scheme = Scheme(bits=bits, granularity=PerChannel())
    scale = (np.abs(values).reshape(shape[0], -1).max(1) / scheme.qmax + 1e-6).astype(np.float32)
    return round_to_grid(values, scale, None, scheme)


def contents(rng, make, shapes=SHAPES):
    """A model of these layers, each with a bias."""
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = make(rng, shape)
        tensors[f"{name}.bias"] = Dense(rng.normal(size=shape[0]).astype(np.float32) / 10)
    parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    return samples.relu(tensors, parameters=parameters, class_names=tuple("0123456789"), versions={"attar": "0.1.0"})


def model(folder, name, what, *, accuracy, per_class=None, ms=0.1, stages=("train",), seeds=3, file=None):
    """Write a file into a run's folder and return what a run would say of it."""
    file = file or f"{name}.attar"
    write_atomically(folder / file, pack(what))
    artifact = open_artifact(folder / file)
    found = inspect_artifact(artifact)
    compressed = [tensor for tensor in what.tensors if isinstance(what.tensors[tensor], Quantized)]
    curves = []
    for number, stage in enumerate(stages):
        for epoch in range(1, 13):
            fall = float(np.exp(-(epoch + 6 * number) / 6))
            row = {"stage": stage, "epoch": epoch, "loss": round(0.05 + 2 * fall, 4), "lr": 0.1 * fall, "seconds": 0.7}
            row |= {"kl": round(1.5 * fall, 4)} if stage != "train" else {}
            curves.append({**row, "validation_accuracy": round(accuracy - 0.4 * fall, 4)})
    layers = [
        {
            "name": layer,
            "kernel": "QLinearConv" if f"{layer}.weight" in compressed else "Conv",
            "integer": f"{layer}.weight" in compressed,
            "reason": "" if f"{layer}.weight" in compressed else "its weight is in floating point",
        }
        for layer in dict.fromkeys(tensor.rpartition(".")[0] for tensor in what.tensors)
    ]
    total = sum(item["elements"] for item in found["tensors"])
    return {
        "name": name,
        "file": file,
        "sha256": artifact.sha256,
        "metric_mean": accuracy,
        "metric_per_seed": [accuracy + step for step in (-0.004, 0.001, 0.003)][:seeds],
        "per_class": per_class or {},
        "parameters": found["parameters"],
        "nonzero_share": sum(item["nonzero"] for item in found["tensors"]) / max(total, 1),
        "bits_per_weight": found["bits_per_weight"],
        "file_bytes": found["file_bytes"],
        "fp32_bytes": 4 * found["parameters"],
        "latency": {"median_ms": ms, "p99_ms": 2 * ms, "spread": 0.06, "ratio": 1.0, "rounds": 400},
        "layers": layers,
        "left_in_floating_point": {"body.0.norm": "a batch-norm between two ReLUs cannot be folded"} if compressed else {},
        "record": [{"stage": stage, "epochs": 12} for stage in stages],
        "curves": curves,
    }


def even(accuracy, rng=None):
    """The accuracy of each of ten classes, about as it is in all."""
    spread = np.linspace(-0.012, 0.012, 10)
    return {str(label): float(np.clip(accuracy + spread[(7 * label) % 10], 0, 1)) for label in range(10)}


def run(models, **fields):
    """What a run says of itself."""
    return {
        "recipe": {"data": "digits", "seeds": [0, 1, 2]},
        "recipe_yaml": "data: digits\nseeds: [0, 1, 2]\nmodels:\n  teacher:\n    source: {factory: digits.py:net}\n",
        "command": "attar run examples/digits.yaml --out runs/demo",
        "versions": {"attar": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.31.0", "numpy": "2.3.0"},
        "seeds": [0, 1, 2],
        "baseline": models[0]["name"],
        "metric": "accuracy",
        "examples": 359,
        "models": models,
        **fields,
    }


def small(folder, *, models=({},), shapes=None, **fields):
    """A run of small models ``a``, ``b``, ...; each is given as what is different in what is said of it."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    told = []
    for index, changes in enumerate(models):
        make = (lambda rng, shape: Dense(weights(rng, shape))) if index == 0 else pruned
        what = contents(rng, make, shapes or {"fc": (10, 8)})
        made = model(
            folder, "abcdef"[index], what, accuracy=0.9 - 0.01 * index, per_class=even(0.9), ms=0.2 / (index + 1)
        )
        told.append({**made, **changes})
    return put(folder, run(told, **fields))


def put(folder, told):
    """Write the report of a run."""
    (folder / "report.json").write_text(json.dumps({"run": told}))
    return folder


def demo(folder, *, collapsed=False):
    """A teacher, a student alone and the compressed student; on demand, the student has lost the class 8."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    wide = {
        name: (4 * shape[0] if name != "head" else 10, *(4 * n if n > 9 else n for n in shape[1:]))
        for name, shape in SHAPES.items()
    }
    student = even(0.978)
    if collapsed:
        student |= {"8": 0.61}
    dense = lambda rng, shape: Dense(weights(rng, shape))  # noqa: E731
    models = [
        model(folder, "teacher", contents(rng, dense, wide), accuracy=0.986, per_class=even(0.986), ms=0.412),
        model(folder, "alone", contents(rng, dense), accuracy=0.967, per_class=even(0.967), ms=0.121),
        model(
            folder,
            "student",
            contents(rng, pruned),
            accuracy=0.9788,
            per_class=student,
            ms=0.083,
            stages=("distill", "finetune"),
        ),
    ]
    return put(folder, run(models, class_examples={str(label): 36 for label in range(10)}))
