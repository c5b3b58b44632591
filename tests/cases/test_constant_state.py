"""A state that is zero in all calibration examples: its grid would clip every later state, and no figure shows it."""

import numpy as np
import pytest
import torch
from tests.cases.models import decibels
from torch import nn

import attar
from attar import AttarWarning

X = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))


class Cell(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.out = cell(8, 16), nn.Linear(16, 3)

    def forward(self, x, h):
        h = self.cell(x, h)
        return self.out(h), h


class Hand(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.new, self.old = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)

    def forward(self, x, h):
        return torch.tanh(self.new(x) + self.old(h))


class Side(nn.Module):
    """A side input that was never used while calibrating."""

    def __init__(self):
        super().__init__()
        self.main, self.side, self.out = nn.Linear(8, 16), nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x, side):
        return self.out(torch.relu(self.main(x)) + self.side(side))


@pytest.mark.parametrize("cell", [nn.GRUCell, Hand])
def test_states_of_later_steps_are_not_clipped(tmp_path, cell):
    torch.manual_seed(0)
    net = Cell(cell).eval()
    quantized = attar.quantize(net, {"x": X, "h": torch.zeros(len(X), 16)}, bits=8, activations=8)
    with pytest.warns(AttarWarning, match="input 'h' is the same in all calibration examples"):
        quantized.save(tmp_path / "m.attar")
    session, h, found = attar.Session(tmp_path / "m.attar"), torch.zeros(32, 16), np.zeros((32, 16), np.float32)
    for step in range(4):
        x = X[32 * step : 32 * step + 32]
        with torch.no_grad():
            y, h = net(x, h)
        got, found = session.run({"x": x.numpy(), "h": found}).values()
        assert decibels(y, got) > 25


def test_an_input_that_was_never_used_works_when_it_is(tmp_path):
    torch.manual_seed(0)
    net = Side().eval()
    with pytest.warns(AttarWarning, match="input 'side' is the same"):
        attar.quantize(net, (X, torch.zeros(len(X), 4)), bits=8, activations=8).save(tmp_path / "m.attar")
    side = torch.randn(256, 4)
    with torch.no_grad():
        found = attar.Session(tmp_path / "m.attar").run({"x": X.numpy(), "side": side.numpy()})
        assert decibels(net(X, side), next(iter(found.values()))) > 10  # 4.6 with a grid for the side


def test_a_state_that_varies_is_quantized_without_a_word(tmp_path):
    torch.manual_seed(0)
    report = attar.quantize(Cell(Hand).eval(), (X, torch.rand(256, 16) - 0.5), bits=8, activations=8).save(
        tmp_path / "m.attar"
    )
    assert not report["warnings"]
    assert "h" not in report["left_in_floating_point"]
