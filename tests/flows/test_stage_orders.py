"""Stages in any order: post-training quantization before, between and after trainings, and resumed in the middle."""

import numpy as np
import pytest
import torch
from torch import nn

import attar
from attar.extend import Codebook, Dense, Quantized

TRAIN = {"stage": "train", "epochs": 2, "batch": 32, "optimizer": {"name": "adamw", "lr": 1e-2}}
PTQ = {"stage": "quantize", "bits": 4}
PTQ8 = {"stage": "quantize", "bits": 8, "activations": 8}
WEIGHTS = ("0.weight", "3.weight")


def net(width=16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def examples(count):
    rng = np.random.default_rng(count)
    y = rng.integers(0, 3, count)
    return (np.eye(3)[y].repeat(2, 1) + rng.normal(scale=0.4, size=(count, 6))).astype("float32"), y


def recipe(stages, width=16):
    data = {"source": {"train": examples(256), "test": examples(96)}, "validation": 0}
    return attar.Recipe(data=data, threads=1, models={"net": {"source": net(width), "stages": stages}})


def run(stages, folder, width=16, **options):
    """Run the stages; return the file, opened, and the model's part of the report."""
    done = attar.run(recipe(stages, width), folder, **options)
    return attar.open_artifact(done.files["net"]), done.report["models"][0]


def stages_of(artifact):
    return [stage["stage"] for stage in artifact.manifest.recipe["stages"]]


def test_training_after_quantization_keeps_the_grids_and_the_activations(tmp_path):
    whole, _ = run([TRAIN, {**PTQ, "activations": 8}], tmp_path / "before")
    artifact, report = run([TRAIN, {**PTQ, "activations": 8}, {**TRAIN, "stage": "finetune"}], tmp_path / "after")
    assert stages_of(artifact) == ["train", "quantize", "finetune"]
    for name in WEIGHTS:
        tensor, before = artifact.tensor(name), whole.tensor(name)
        assert isinstance(tensor, Quantized)
        assert tensor.scheme.bits == 4
        assert not np.array_equal(tensor.codes, before.codes)
    assert report["left_in_floating_point"] == {}
    assert len(attar.Session(artifact).integer_layers()) == 2
    assert report["metric_mean"] > 0.9


def test_layers_quantized_one_stage_after_another_are_those_of_one_stage(tmp_path):
    """Each stage touches its layers alone; together they are the file of one stage with an override."""
    first = {**PTQ, "layers": ["0"], "correct_bias": False}
    second = {**PTQ, "bits": 8, "layers": ["3"], "correct_bias": False}
    half, report = run([TRAIN, first], tmp_path / "half")
    assert isinstance(half.tensor("3.weight"), Dense)
    assert list(report["left_in_floating_point"]) == ["3.weight"]
    artifact, report = run([TRAIN, first, second], tmp_path / "two")
    once, _ = run([TRAIN, {**PTQ, "correct_bias": False, "overrides": {"3": 8}}], tmp_path / "once")
    assert stages_of(artifact) == ["train", "quantize", "quantize"]
    for name in WEIGHTS:
        assert np.array_equal(artifact.tensor(name).codes, once.tensor(name).codes)
        assert np.array_equal(artifact.tensor(name).scale, once.tensor(name).scale)
    assert report["left_in_floating_point"] == {}


def test_reconstruction_follows_a_target(tmp_path):
    """Guards the trial before a run: it does not know which bits a target will leave, and must not take them for 8."""
    chosen = {**PTQ, "bits": {"size": 4.5}, "scales": "gptq"}
    artifact, report = run([TRAIN, chosen, {"stage": "reconstruct", "steps": 100}], tmp_path, width=256)
    assert stages_of(artifact) == ["train", "quantize", "reconstruct"]
    assert 4 < report["bits_per_weight"] <= 4.5


def test_a_rule_of_a_later_training_takes_over_the_grids(tmp_path):
    polino = {"name": "codebook", "bits": 2}
    artifact, report = run([TRAIN, PTQ, {**TRAIN, "stage": "finetune", "constraints": [polino]}], tmp_path)
    assert all(isinstance(artifact.tensor(name), Codebook) for name in WEIGHTS)
    assert report["metric_mean"] > 0.8


def test_quantization_begins_and_ends_a_pipeline(tmp_path):
    """The first stage of all may be post-training quantization; after a training of other layers it may come again."""
    last = {**PTQ, "bits": 8, "layers": ["3"]}
    artifact, report = run([{**PTQ, "layers": ["0"]}, {**TRAIN, "epochs": 5}, last], tmp_path)
    assert stages_of(artifact) == ["quantize", "train", "quantize"]
    assert [artifact.tensor(name).scheme.bits for name in WEIGHTS] == [4, 8]
    assert report["metric_mean"] > 0.9


class Smooth(nn.Module):
    """Batch-norms with other activations behind them than a ReLU, a residual and a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv1d(2, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.second, self.again = nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.rows, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        x = nn.functional.gelu(self.norm(self.first(x)))
        x = torch.relu(self.again(self.second(x)) + x)
        return self.head(self.rows(x.transpose(1, 2))[0].mean(1))


def test_activations_keep_their_grids_where_batch_norms_are_folded_after_the_training(tmp_path):
    """Values have other names in the graph with batch-norms than in the folded one: grids go by what is computed."""
    torch.manual_seed(0)
    x, y = examples(192)
    x = np.stack([x, x[:, ::-1]], 1).astype("float32")
    slight = {**TRAIN, "epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-9}, "norm_batches": 0}
    artifacts = {}
    for name, stages in {"last": [TRAIN, PTQ8], "trained on": [TRAIN, PTQ8, slight]}.items():
        torch.manual_seed(0)
        data = {"source": {"train": (x, y), "test": (x, y)}, "validation": 0}
        models = {"net": {"source": Smooth(), "stages": stages}}
        done = attar.run(attar.Recipe(data=data, threads=1, models=models), tmp_path / name.replace(" ", "_"))
        assert done.report["models"][0]["left_in_floating_point"] == {}
        artifacts[name] = attar.open_artifact(done.files["net"])
    last, trained = (artifact.manifest.graphs[0].activations for artifact in artifacts.values())
    assert [grid.value for grid in last] == [grid.value for grid in trained]
    for one, other in zip(last, trained, strict=True):
        # Running statistics move a little in an epoch; the range of another value would be far off.
        assert other.scale == pytest.approx(one.scale, rel=0.3), one.value


def test_a_second_stage_keeps_the_activations_that_its_layers_do_not_touch(tmp_path):
    first = {**PTQ, "layers": ["0"], "activations": 4, "correct_bias": False}
    artifact, _ = run([TRAIN, first, {**PTQ, "layers": ["3"], "activations": 8}], tmp_path)
    bits = {grid.value: grid.bits for grid in artifact.manifest.graphs[0].activations}
    assert bits == {"input_1": 4, "relu": 8}


def test_what_a_training_cannot_hold_to_its_grid_is_refused_before_it(tmp_path):
    class Placed(nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.layer = nn.Parameter(torch.randn(4, 6)), nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x + self.place[0])

    data = {"source": {"train": examples(64), "test": examples(96)}, "validation": 0}
    stages = [{**PTQ, "overrides": {"place": 4}}, TRAIN]
    with pytest.raises(attar.SpecError, match=r"models\.net\.stages\.1: 'place' multiplies no data"):
        attar.run(attar.Recipe(data=data, models={"net": {"source": Placed(), "stages": stages}}), tmp_path / "run")


LOSS = """
from pathlib import Path

import torch

steps = 0


def loss(outputs, targets):
    global steps
    # Eight steps an epoch; the trial before a run has fewer examples than a batch.
    if len(targets) == 32 and Path({flag!r}).exists():
        steps += 1
        if steps == 12:
            raise KeyboardInterrupt
    return torch.nn.functional.cross_entropy(outputs, targets)
"""


def test_a_run_stopped_in_the_training_after_quantization_goes_on_to_the_same_bytes(tmp_path):
    (tmp_path / "own.py").write_text(LOSS.format(flag=str(tmp_path / "stop")))
    after = {**TRAIN, "stage": "finetune", "objective": f"{tmp_path / 'own.py'}:loss"}
    stages = [TRAIN, {**PTQ, "activations": 8}, after]
    run(stages, tmp_path / "whole")
    (tmp_path / "stop").touch()
    with pytest.raises(KeyboardInterrupt):
        run(stages, tmp_path / "stopped")
    assert not list((tmp_path / "stopped").rglob("*.attar"))
    (tmp_path / "stop").unlink()
    run(stages, tmp_path / "stopped", resume=True)
    assert (tmp_path / "stopped" / "net.attar").read_bytes() == (tmp_path / "whole" / "net.attar").read_bytes()


def test_a_reconstruction_is_between_quantization_and_the_file(tmp_path):
    coarse = {**PTQ, "bits": 2, "scales": "absmax"}
    rounded, _ = run([TRAIN, coarse], tmp_path / "rounded")
    better = {"stage": "reconstruct", "steps": 30, "network_steps": 30}
    artifact, _ = run([TRAIN, coarse, better], tmp_path / "better")
    assert stages_of(artifact) == ["train", "quantize", "reconstruct"]
    assert not np.array_equal(artifact.tensor("0.weight").codes, rounded.tensor("0.weight").codes)
    errors = artifact.manifest.recipe["stages"][-1]["errors"]
    assert errors["all"][1] < errors["all"][0]
