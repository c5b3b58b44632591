"""Trainings at the defaults of networks without normalization, and the warning where a training failed."""

import pytest
import torch
from tests.cases.training import trained
from torch import nn

from attar import AttarError

FOUR = {"epochs": 4, "batch": 32}
TEACHER = {"stage": "train", "optimizer": {"name": "adamw", "lr": 0.003}, **FOUR}
DISTILL = {"stage": "distill", "teacher": "t", **FOUR}


def flat(channels=8):
    return nn.Sequential(
        *(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * channels, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def deep(channels=8):
    pairs = [(1, channels), (channels, channels), (channels, 2 * channels), (2 * channels, 2 * channels)]
    layers = [layer for sizes in pairs for layer in (nn.Conv2d(*sizes, 3, padding=1), nn.ReLU())]
    return nn.Sequential(
        *layers[:4], nn.MaxPool2d(2), *layers[4:], nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * channels, 10)
    )


def mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def normalized(channels=8):
    pairs = [(1, channels), (channels, 2 * channels), (2 * channels, 4 * channels)]
    blocks = [(nn.Conv2d(*sizes, 3, padding=1), nn.BatchNorm2d(sizes[1]), nn.ReLU()) for sizes in pairs]
    return nn.Sequential(
        *(*blocks[0], *blocks[1], nn.MaxPool2d(2), *blocks[2], nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4 * channels, 10),
    )


def warnings(report):
    return {model["name"]: model["warnings"] for model in report["models"]}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Students distilled at the defaults, one without clipping, and a model that is not trained."""
    torch.manual_seed(0)
    students = {"flat": flat(), "deep": deep(), "mlp": mlp(), "normalized": normalized()}
    models = {"t": {"source": flat(16), "stages": [TEACHER]}}
    models |= {name: {"source": net, "stages": [DISTILL]} for name, net in students.items()}
    models |= {"unclipped": {"source": flat(), "stages": [DISTILL | {"clip": None}]}, "untrained": {"source": mlp()}}
    return trained(tmp_path_factory.mktemp("digits") / "run", data="digits", models=models)


@pytest.mark.parametrize("name", ["flat", "deep", "mlp", "normalized"])
def test_the_defaults_distil_networks_with_and_without_normalization(digits, name):
    report, found = digits
    assert found[name] > 0.9
    assert warnings(report)[name] == warnings(report)["t"] == []


@pytest.mark.parametrize("name", ["unclipped", "untrained"])
def test_a_model_at_chance_is_warned_of(digits, name):
    """Without clipping, layers die in the first steps, and every image gets the same answer."""
    report, found = digits
    assert found[name] < 0.2
    (first, *_) = warnings(report)[name]
    assert first.startswith("its test accuracy of ")
    assert "is no better than chance: class" in first
    assert "lower optimizer.lr" in first


def test_a_training_that_makes_a_model_worse_is_warned_of(tmp_path):
    ruin = {"stage": "finetune", "epochs": 2, "batch": 32, "optimizer": {"name": "sgd", "lr": 3.0}, "clip": None}
    torch.manual_seed(0)
    models = {"t": {"source": flat(), "stages": [TEACHER, ruin]}}
    report, _ = trained(tmp_path / "run", data="digits", models=models)
    said = " ".join(warnings(report)["t"])
    assert "no better than chance" in said
    assert "stages.1 (finetune): validation accuracy fell from 0.9" in said


@pytest.mark.parametrize("stage", ["train", "finetune"])
def test_a_loss_that_is_not_finite_ends_the_run_at_its_stage(tmp_path, stage):
    diverging = {"stage": stage, "epochs": 2, "batch": 32, "optimizer": {"name": "sgd", "lr": 1e6}, "clip": None}
    given = {"data": "digits", "models": {"n": {"source": mlp(), "stages": [diverging]}}}
    message = r"recipe\.models\.n\.stages\.0: the loss is (nan|inf) in step \d+ of epoch 1 .*optimizer\.lr, .*clip: 2"
    with pytest.raises(AttarError, match=message):
        trained(tmp_path / "run", **given)
