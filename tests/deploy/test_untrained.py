"""Modules that pruning ruined: quantization says so, as its own comparison is with the ruined module.

Guards a file with 100 % equal predictions of a network at chance.
"""

import pytest
import torch
from torch import nn

import attar
from attar._src.deploy.build_module import build_module
from attar._src.deploy.pruning.untrained import PruningLoss


def make():
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


@pytest.fixture(scope="module")
def given():
    torch.manual_seed(0)
    module, x = make().eval(), torch.randn(128, 8)
    return module, x, module(x).argmax(1)


def warned(module, x):
    return [each for each in attar.quantize(module, x, bits=8).compressed.warnings if "pruned and not trained" in each]


def test_quantize_warns_of_a_ruined_module_until_it_is_trained(given, tmp_path):
    module, x, y = given
    result = attar.prune(module, x, labels=y, channels=0.9, least=0.0)
    (said,) = warned(result.module, x)
    assert "its accuracy went from 1 to 0." in said
    result.save_weights(tmp_path / "w.safetensors")
    again = build_module(make, {}, tmp_path / "w.safetensors")
    assert warned(again, x) == [said]
    with torch.no_grad():
        again[0].weight.mul_(1.01)
        result.module[0].weight.mul_(1.01)
    assert warned(again, x) == []
    result.save_weights(tmp_path / "trained.safetensors")
    assert warned(build_module(make, {}, tmp_path / "trained.safetensors"), x) == []


def test_outputs_tell_without_labels_and_little_loss_is_none(given):
    module, x, _ = given
    (said,) = warned(attar.prune(module, x, sparsity=0.97).module, x)
    assert "signal to noise of its outputs is" in said
    assert warned(attar.prune(module, x, sparsity=0.1).module, x) == []


@pytest.mark.parametrize(
    ("fields", "ruined"),
    [
        ({"metric": ("accuracy", 0.9, 0.85)}, False),
        ({"metric": ("accuracy", 0.9, 0.7)}, True),
        ({"metric": ("mean_squared_error", 8.0, 20.0)}, True),
        ({"signal_to_noise_db": 12.0}, False),
        ({"signal_to_noise_db": -1.0}, True),
        ({}, False),
    ],
)
def test_what_counts_as_ruined(fields, ruined):
    assert bool(PruningLoss(weights="", examples=9, **fields).warning()) is ruined
