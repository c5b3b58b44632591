"""LSTM and GRU stay in floating point where 8-bit grids over what they read would ruin them, and that is told.

Guards the kind: a choice made for speed (integers by default) that costs the outputs, unasked.
"""

import warnings

import pytest
import torch
from torch import nn

import attar


class Net(nn.Module):
    def __init__(self, kind, hidden):
        super().__init__()
        self.rnn = kind(6, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def sequences(largest):
    """Return sequences whose first feature, which the net does not look at, is ``largest`` times as large."""
    torch.manual_seed(0)
    x = torch.randn(48, 12, 6)
    x[..., 0] *= largest
    return x


def net(kind, hidden):
    torch.manual_seed(1)
    made = Net(kind, hidden)
    with torch.no_grad():
        made.rnn.weight_ih_l0[:, 0] = 0
    return made


@pytest.mark.parametrize(("kind", "hidden"), [(nn.LSTM, 64), (nn.GRU, 256)])
def test_a_layer_that_would_lose_too_much_reads_floating_point(kind, hidden, tmp_path):
    module, x = net(kind, hidden), sequences(1000)
    name = kind.__name__.lower()
    found = attar.quantize(module, x, bits=8, activations=8)
    assert not found.compressed.main.dynamic
    (warning,) = [each for each in found.compressed.warnings if "reads floating point" in each]
    assert warning.startswith(f"{name} reads floating point")
    assert "activations='dynamic'" in warning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", attar.AttarWarning)
        report = found.save(tmp_path / "m.attar")
        asked = attar.quantize(module, x, bits=8, activations="dynamic")
        insisted = asked.save(tmp_path / "dynamic.attar")
    assert warning in report["warnings"]
    assert asked.compressed.main.dynamic == {name, "linear"}
    decibels = [each["fidelity"]["outputs"]["linear"]["signal_to_noise_db"] for each in (report, insisted)]
    assert decibels[1] < 15 < decibels[0] - 10


@pytest.mark.parametrize(("kind", "hidden"), [(nn.LSTM, 64), (nn.GRU, 256)])
def test_other_layers_stay_in_integers_without_a_word(kind, hidden):
    found = attar.quantize(net(kind, hidden), sequences(1), bits=8, activations=8)
    assert found.compressed.main.dynamic == {kind.__name__.lower()}
    assert not [each for each in found.compressed.warnings if "reads floating point" in each]
