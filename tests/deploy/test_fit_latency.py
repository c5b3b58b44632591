"""``max_ms``: what is timed is what is taken, and of the files in time the one that errs least."""

import pytest
import torch
from torch import nn

import attar
from attar._src.core.errors import SpecError
from attar._src.deploy.choices.fit_latency import LatencyFit


class Net(nn.Module):
    """A convolution and two linear layers, which can be dynamic."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(1, 4, 3), nn.Linear(144, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.second(torch.relu(self.first(torch.relu(self.stem(x)).flatten(1))))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval(), torch.randn(32, 1, 8, 8)


@pytest.fixture
def timed(monkeypatch):
    """Let a file take 4 ms less 0.75 for each static grid and 0.5 for each dynamic layer."""

    def cost(model):
        graph = model.main
        return 4.0 - 0.75 * len(graph.activations) - 0.5 * len(graph.dynamic)

    monkeypatch.setattr(LatencyFit, "times", lambda self, models, seconds=1: [cost(each) for each in models])
    return cost


def test_floating_point_is_taken_if_it_is_in_time(net, timed):
    """Guards the easy case: no error where none is needed."""
    result = attar.quantize(*net, bits=8, max_ms=4.5, tolerance=None)
    assert not result.compressed.main.activations
    assert "floating point is in time" in result.notes["activations"]


def test_some_layers_are_quantized_if_that_is_enough(net, timed, tmp_path, monkeypatch):
    """Guards the program: as few grids as the time allows, and the file computes what was chosen (parity)."""

    def error(self, model):
        return len(model.main.activations) + 0.7 * len(model.main.dynamic)

    monkeypatch.setattr(LatencyFit, "error", error)
    result = attar.quantize(*net, bits=8, max_ms=2.2, tolerance=None)
    assert timed(result.compressed) <= 2.2
    assert len(result.compressed.main.activations) == 2
    assert len(result.compressed.main.dynamic) == 1
    assert "taken: of 3 inputs of layers" in result.notes["activations"]
    report = result.save(tmp_path / "m.attar")
    assert report["parity"]["examples"]


def test_what_nothing_holds_names_the_nearest(net, timed):
    """Guards the refusal: the time that it names is one that holds."""
    with pytest.raises(SpecError, match=r"no file runs in 0.5 ms.*max_ms=(\d+\.\d+)") as refused:
        attar.quantize(*net, bits=8, max_ms=0.5, tolerance=None)
    nearest = float(str(refused.value).split("max_ms=")[1])
    assert timed(attar.quantize(*net, bits=8, max_ms=nearest, tolerance=None).compressed) <= nearest


def test_real_times_are_measured(net):
    """Guards the timing itself: a second is enough for any file."""
    result = attar.quantize(*net, bits=8, max_ms=1000, tolerance=None)
    assert "ms" in result.notes["activations"]
    with pytest.raises(SpecError, match=r"no file runs in 0\.0001 ms"):
        attar.quantize(*net, bits=8, max_ms=0.0001, tolerance=None)
    with pytest.raises(SpecError, match="give a time above 0"):
        attar.quantize(*net, max_ms=1, activations=8)
    with pytest.raises(SpecError, match="time files of one size"):
        attar.quantize(*net, max_ms=1, size=3)
