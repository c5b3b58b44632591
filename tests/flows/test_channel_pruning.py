"""Recipes that remove channels or layers, then train and quantize; killed in the middle and resumed; ``attar prune``.

Guards against stages that go on with the module as it was, checkpoints of other shapes, seeds that start from a pruned
module, and orders of stages that cannot work.
"""

import hashlib
import json

import numpy as np
import pytest
import torch

import attar
from attar._src.cli import main
from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.methods.training_stage import TrainingStage
from attar._src.recipe.recipe import read_recipe

NETS = """
import numpy as np
from torch import nn


def net():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3),
    )


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return (x + self.conv(x)).relu()


def deep():
    blocks = nn.Sequential(*(Block() for _ in range(4)))
    return nn.Sequential(nn.Conv2d(1, 8, 3), blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


def sets(split):
    n = {"train": 256, "test": 64}[split]
    rng = np.random.default_rng(len(split))
    y = rng.integers(0, 3, n)
    x = rng.normal(scale=0.5, size=(n, 1, 6, 6))
    x[np.arange(n), 0, 2 * y] += 1
    return x.astype("float32"), y
"""
RECIPE = """
data: nets.py:sets
threads: 1
seeds: [0, 1]
models:
  big:
    source: nets.py:net
    stages: [{stage: train, epochs: 3, batch: 32, optimizer: {name: adamw, lr: 0.01}}]
  small:
    source: nets.py:net
    stages:
      - {stage: train, epochs: 2, batch: 32, optimizer: {name: adamw, lr: 0.01}}
      - {stage: prune_channels, macs: 0.6, score: taylor, batch: 32, batches: 4}
      - {stage: distill, teacher: big, epochs: 2, batch: 32, optimizer: {name: adamw, lr: 0.01}}
      - {stage: quantize, bits: 8, activations: 8}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "nets.py").write_text(NETS)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def digests(run):
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.rglob("*.attar")
    }


def test_a_smaller_module_is_trained_and_quantized_and_a_resumed_run_has_the_same_bytes(folder, monkeypatch):
    done = attar.run(folder / "recipe.yaml", folder / "whole")
    (small,) = [model for model in done.report["models"] if model["name"] == "small"]
    entry = next(each for each in small["record"] if each["stage"] == "prune_channels")
    assert entry["macs"][1] <= 0.4 * entry["macs"][0]
    assert small["parameters"] == entry["parameters"][1] < entry["parameters"][0]
    assert small["metric_mean"] > 0.9
    into = load_object(f"{folder / 'nets.py'}:net")()
    loaded = attar.load(done.files["small"], into=into)
    assert into[0].out_channels + into[3].out_channels < 32
    x = np.zeros((2, 1, 6, 6), np.float32)
    np.testing.assert_allclose(
        attar.Session(done.files["small"]).run(x), loaded(torch.from_numpy(x)).detach().numpy(), atol=1e-3
    )
    # Cut behind the removal, in the second epoch of what follows; one seed tells.
    recipe, epochs = read_recipe(folder / "recipe.yaml", ["seeds=[0]"]), []
    whole = {name: digest for name, digest in digests(folder / "whole").items() if "seed-1" not in name}
    fit = TrainingStage._fit

    def cut(self, job, context):
        def log(row):
            context.log(row)
            epochs.append(row)
            if self.stage == "distill" and len(epochs) == 6:
                raise KeyboardInterrupt

        return fit(self, job, type(context)(**{**vars(context), "log": log}))

    monkeypatch.setattr(TrainingStage, "_fit", cut)
    with pytest.raises(KeyboardInterrupt):
        attar.run(recipe, folder / "cut")
    monkeypatch.undo()
    attar.run(recipe, folder / "cut", resume=True)
    assert digests(folder / "cut") == whole


def test_layers_are_removed_and_the_rest_is_trained(folder):
    adam = {"name": "adamw", "lr": 0.01}
    done = attar.run(
        attar.Recipe(
            data=f"{folder / 'nets.py'}:sets",
            threads=1,
            models={
                "net": {
                    "source": f"{folder / 'nets.py'}:deep",
                    "stages": [
                        {"stage": "train", "epochs": 2, "batch": 32, "optimizer": adam},
                        {"stage": "prune_layers", "layers": 0.5, "score": "loss", "batch": 32, "batches": 4},
                        {"stage": "train", "epochs": 2, "batch": 32, "optimizer": adam},
                        {"stage": "quantize", "bits": 8},
                    ],
                }
            },
        ),
        folder / "layers",
    )
    (net,) = done.report["models"]
    entry = next(each for each in net["record"] if each["stage"] == "prune_layers")
    assert entry["layers"] == [4, 2]
    assert net["metric_mean"] > 0.9
    assert net["parameters"] == entry["parameters"][1]
    into = load_object(f"{folder / 'nets.py'}:deep")()
    attar.load(done.files["net"], into=into)
    assert len(into[1]) == 2


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"stage": "quantize"}, {"stage": "prune_channels", "channels": 0.5}], "put it before"),
        (
            [{"stage": "prune", "sparsity": 0.5, "epochs": 1, "objective": "cross_entropy"},
             {"stage": "prune_channels", "channels": 0.5}],
            "PruneConstraint of an earlier stage hold the weights; put prune_channels before",
        ),
        ([{"stage": "prune_channels", "channels": 0.5, "exclude": ["9"]}], "no layer named '9'"),
        ([{"stage": "prune_channels"}], "give one of the three: channels, macs or max_bytes"),
        ([{"stage": "prune_channels", "macs": 0.99}], "without all that can be removed"),
        ([{"stage": "quantize"}, {"stage": "prune_layers", "layers": 1}], "prune_layers: .* put it before"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_before_any_training(folder, stages, message, tmp_path):
    with pytest.raises(SpecError, match=message):
        attar.run(
            attar.Recipe(
                data=f"{folder / 'nets.py'}:sets",
                threads=1,
                models={"net": {"source": f"{folder / 'nets.py'}:net", "stages": stages}},
            ),
            tmp_path / "run",
        )


def test_the_command(folder, capsys):
    model, data = f"{folder / 'nets.py'}:net", f"{folder / 'nets.py'}:sets"
    weights = folder / "half.safetensors"
    assert main(["prune", model, "-d", data, "--macs", "0.5", "--round-to", "4", "-o", str(weights), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["macs"][1] <= figures["macs"][0] / 2
    assert figures["widths"]
    assert all(after % 4 == 0 for _, after in figures["widths"].values())
    file = folder / "half.attar"
    assert main(["quantize", model, "-w", str(weights), "-d", data, "-o", str(file)]) == 0
    assert f"{figures['parameters'][1]:,} parameters" in capsys.readouterr().out
    assert main(["prune", model, "-d", data, "--channels", "0.5", "-o", str(file)]) == 0
    out = capsys.readouterr().out
    assert "ms an example, one thread" in out
    # Guards against a figure of training examples that reads like one of others.
    assert f"accuracy is of 256 examples of {data}, split train: if the network was trained on them" in out
    assert "stays: 7.weight: the model's output has its channels" in out
    deep = f"{folder / 'nets.py'}:deep"
    assert main(["prune", deep, "-d", data, "--layers", "2", "-o", str(weights)]) == 0
    out = capsys.readouterr().out
    assert "layers that can be removed" in out
    assert out.count("removed: 1.") == 2
    assert main(["prune", deep, "-d", data, "--unit", "layer", "--macs", "0.2", "-o", str(weights), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == [4, 3]
    assert main(["prune", model, "-d", data, "--channels", "0.5", "-o", str(folder / "half.pt")]) == 2
    assert "name a .safetensors or .attar file" in capsys.readouterr().err
