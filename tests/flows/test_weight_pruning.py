"""Weights set to zero without training: ``attar.prune``, ``attar prune``, and recipes that go on with the zeros.

Guards against files that keep zeros as dense numbers, reports that promise time, and later stages that lose zeros.
"""

import copy
import hashlib
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import attar
from attar._src.cli import main
from attar._src.core.errors import DataError, ModelError, SpecError
from attar._src.core.tensors import Sparse
from attar._src.deploy.build_module import build_module
from attar._src.deploy.pruning.prune import speed_in_words
from attar._src.methods.training_stage import TrainingStage

NETS = """
import numpy as np
from torch import nn


def net():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3),
    )


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
models:
  alone:
    source: nets.py:net
    stages:
      - {stage: train, epochs: 2, batch: 32, optimizer: {name: adamw, lr: 0.01}}
      - {stage: prune_weights, sparsity: 0.5, overrides: {"7": 0.25}}
  further:
    source: nets.py:net
    stages:
      - {stage: train, epochs: 2, batch: 32, optimizer: {name: adamw, lr: 0.01}}
      - {stage: prune_weights, unit: "2:4", keep: ["0"], score: taylor, batch: 32, batches: 4}
      - {stage: finetune, epochs: 2, batch: 32, objective: cross_entropy, optimizer: {name: adamw, lr: 0.003}}
      - {stage: quantize, bits: 8, activations: 8}
"""


def net():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(16)
    nn.init.uniform_(norm.bias, 0.1, 1)
    return nn.Sequential(nn.Conv2d(4, 16, 3, bias=False), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4)).eval()


@pytest.mark.parametrize("fields", [{"sparsity": 0.5}, {"unit": "2:4"}, {"unit": "4x1", "sparsity": 0.5}])
def test_a_file_is_sparse_and_says_that_it_is_not_faster(fields, tmp_path):
    module, x = net(), torch.randn(64, 4, 8, 8)
    before = copy.deepcopy(module.state_dict())
    result = attar.prune(module, x, **fields)
    assert all(map(torch.equal, module.state_dict().values(), before.values()))
    for name in ("0.weight", "4.weight"):
        assert float((result.module.state_dict()[name] == 0).float().mean()) == 0.5
    assert result.figures["sparsity"] == {"0.weight": 0.5, "4.weight": 0.5}
    saved = result.save(tmp_path / "m.attar")
    pruning = saved["pruning"]
    assert json.loads((tmp_path / "report.json").read_text())[saved["sha256"]]["pruning"] == pruning
    macs, count = 16 * 36 * 36 + 4 * 576, sum(each.numel() for each in module.parameters())
    # Zeros are multiplied, and have their place in memory: only the file is smaller.
    assert (pruning["macs"], pruning["parameters"]) == ([macs, macs], [count, count])
    assert pruning["nonzero_macs"] == [macs, macs // 2]
    zeros = (16 * 36 + 4 * 576) // 2
    assert result.figures["nonzero"] == [count, count - zeros]
    assert repr(result) == f"<PruningResult: {count - zeros:,} of {count:,} parameters not zero>"
    assert pruning["nonzero"][0] - pruning["nonzero"][1] == zeros
    assert pruning["file_bytes"][1] < 0.65 * pruning["file_bytes"][0]
    assert pruning["speed"] == speed_in_words(pruning["times_faster"], zeros=True)
    artifact = attar.open_artifact(tmp_path / "m.attar")
    assert isinstance(artifact.tensor("4.weight"), Sparse)
    assert (artifact.tensor("4.weight").dense() == 0).mean() == 0.5
    got = attar.Session(tmp_path / "m.attar").run(x[:4].numpy())
    np.testing.assert_allclose(got, result.module(x[:4]).detach().numpy(), atol=1e-4)
    result.save_weights(tmp_path / "w.safetensors")
    again = build_module(net, {}, tmp_path / "w.safetensors")
    assert all(map(torch.equal, again.state_dict().values(), result.module.state_dict().values()))


def test_speed_is_said_in_words():
    assert speed_in_words(2.0, zeros=False) == "2.00 times faster than before, measured in turns"
    for noise in (0.9, 1.02, 1.2):
        assert speed_in_words(noise, zeros=True).startswith("not faster than before: the runtime multiplies by zeros")
    assert "takes little of the time" in speed_in_words(0.98, zeros=False)


def test_what_is_left_out_is_told():
    result = attar.prune(net(), torch.randn(32, 4, 8, 8), unit="2:8")
    assert result.excluded == {"0.weight": "its 4 input channels are no multiple of 8"}
    result = attar.prune(net(), torch.randn(32, 4, 8, 8), sparsity=0.5, exclude=["0"], overrides={"4": 0.25})
    assert result.figures["sparsity"] == {"4.weight": 0.25}
    normed = net()
    nn.utils.parametrizations.weight_norm(normed[4])
    result = attar.prune(normed, torch.randn(32, 4, 8, 8), sparsity=0.5)
    assert "remove the parametrization first" in result.excluded["4.weight"]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"unit": "2:5"}, ModelError, r"no weight of Sequential can be pruned: 0.weight: its 4 input channels are no"),
        ({"sparsity": 0.5, "exclude": ["*"]}, ModelError, "can be pruned: exclude has all"),
        ({"sparsity": 0.5, "max_ms": 1.0}, SpecError, "max_ms= tells how much is removed; leave out sparsity="),
        (
            {"unit": "2:4", "max_ms": 1.0},
            SpecError,
            "max_ms= is of unit='channel' or 'layer', and unit='2:4'",
        ),
        ({"sparsity": 0.5, "channels": 0.5}, SpecError, "sparsity= is of unit='weight', and unit='channel' is pruned"),
        ({"unit": "2:4", "least": 0.5}, SpecError, "least= is of unit='channel', and unit='2:4' is pruned"),
        ({"unit": "2:4", "sparsity": 0.5}, SpecError, "unit 2:4 prunes 0.5 of every weight"),
        ({"unit": "wight"}, SpecError, "unit 'wight': write weight, N:M .*; or channel, or layer"),
        ({"unit": "weight"}, SpecError, "sparsity is missing"),
        ({"sparsity": 0.5, "update": "obss"}, SpecError, "'none', 'obs' or 'sparsegpt'"),
        ({"sparsity": 0.5, "score": "taylor"}, DataError, "needs labels"),
    ],
)
def test_what_cannot_be_asked_for(fields, error, message):
    with pytest.raises(error, match=message):
        attar.prune(net(), torch.randn(8, 4, 8, 8), **fields)


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


def test_a_recipe_goes_on_with_the_zeros_and_a_resumed_run_has_the_same_bytes(folder, monkeypatch):
    done = attar.run(folder / "recipe.yaml", folder / "whole")
    alone, further = (attar.open_artifact(done.files[name]) for name in ("alone", "further"))
    assert (alone.tensor("3.weight").dense() == 0).mean() == 0.5
    assert (alone.tensor("7.weight").dense() == 0).mean() == 0.25
    assert isinstance(alone.tensor("3.weight"), Sparse)
    weight = further.tensor("3.weight").dense()
    assert ((weight == 0).reshape(16, 4, 4, 9).sum(2) >= 2).all()
    assert (further.tensor("0.weight").dense() != 0).any()
    (model,) = [each for each in done.report["models"] if each["name"] == "further"]
    assert model["metric_mean"] > 0.9
    # Cut behind the pruning, in the first epoch of what follows.
    whole, fit = digests(folder / "whole"), TrainingStage._fit

    def cut(self, job, context):
        def log(row):
            context.log(row)
            if self.stage == "finetune":
                raise KeyboardInterrupt

        return fit(self, job, type(context)(**{**vars(context), "log": log}))

    monkeypatch.setattr(TrainingStage, "_fit", cut)
    with pytest.raises(KeyboardInterrupt):
        attar.run(folder / "recipe.yaml", folder / "cut")
    monkeypatch.undo()
    attar.run(folder / "recipe.yaml", folder / "cut", resume=True)
    assert digests(folder / "cut") == whole


def test_the_command(folder, capsys):
    model, data = f"{folder / 'nets.py'}:net", f"{folder / 'nets.py'}:sets"
    weights = folder / "sparse.safetensors"
    arguments = ["prune", model, "-d", data, "--sparsity", "0.5", "--set", "7=0.25", "-o", str(weights), "--json"]
    assert main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["sparsity"] == {"0.weight": 0.5, "3.weight": 0.5, "7.weight": 0.25}
    assert main(["prune", model, "-d", data, "--unit", "2:4", "-o", str(folder / "m.attar")]) == 0
    out = capsys.readouterr().out
    assert "stays: 0.weight: its 1 input channels are no multiple of 4" in out
    assert "3.weight zero" in out
    assert "than before" in out
    assert main(["prune", model, "-d", data, "--max-bytes", "6k", "-o", str(weights)]) == 0
    out, err = capsys.readouterr()
    assert "bytes were predicted" in out
    before, after = (
        int(each.replace(",", "")) for each in re.search(r"bytes of the file +([\d,]+) +([\d,]+)", out).groups()
    )
    assert after <= 6000 < before
    assert "single weights become zero" in err
    assert "all weights are pruned and measured at 6 sparsities, which takes minutes for a large module" in err
    assert "--unit channel" in err
    assert "--sensitivity FOLDER" in err
    assert main([*arguments[:6], "--set", "7=x", "-o", str(weights)]) == 2
    assert "write GLOB=SHARE" in capsys.readouterr().err


def test_a_target_counts_weights_with_a_sparsity_of_their_own():
    """Guards targets that are refused, or held with less than there is, as if such weights were dense."""
    result = attar.prune(net(), torch.randn(64, 4, 8, 8), sparsity={"max_bytes": 7000}, overrides={"4": 0.7})
    assert result.figures["sparsity"].keys() == {"4.weight"}
    assert result.figures["sparsity"]["4.weight"] == pytest.approx(0.7, abs=1e-3)


def test_a_target_chooses_the_sparsity_of_each_layer(tmp_path):
    module, x = net(), torch.randn(64, 4, 8, 8)
    result = attar.prune(module, x, sparsity={"max_bytes": 7000})
    shares = {name: round(share, 2) for name, share in result.figures["sparsity"].items()}
    assert result.save(tmp_path / "m.attar")["file_bytes"] <= 7000
    assert shares["4.weight"] > shares.get("0.weight", 0.0)
    assert "4.weight" in result.figures["note"]
    attar.sensitivity(module, x, what="sparsity", levels=(0.5, 0.9), folder=tmp_path / "table")
    target = {"max_drop": 5.0, "sensitivity": str(tmp_path / "table")}
    levels = attar.prune(module, x, sparsity=target).figures["sparsity"].values()
    assert {round(each, 1) for each in levels} <= {0.5, 0.9}
    with pytest.raises(SpecError, match=r"no file of 900 bytes: with the highest sparsity .* quantize afterwards"):
        attar.prune(module, x, sparsity={"max_bytes": 900})
    with pytest.raises(SpecError, match="leave unit and scope out"):
        attar.prune(module, x, sparsity={"max_bytes": 7000}, unit="4x1")
    attar.sensitivity(module, x, levels=(4,), folder=tmp_path / "bits")
    with pytest.raises(SpecError, match="of another model or of bits; measure again with --what sparsity"):
        attar.prune(module, x, sparsity={"max_bytes": 7000, "sensitivity": str(tmp_path / "bits")})
