"""``activations="auto"``: what is measured is what is taken, and losses rule out speed."""

import pytest
import torch
from torch import nn

import attar
from attar._src.deploy.choices import choose_activations
from attar._src.measure.latency import Latency
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct


class Net(nn.Module):
    """Linear layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.fixture
def timed(monkeypatch):
    """Let the models take these milliseconds."""

    def of(*times):
        def interleave(runs, **_):
            for run in runs:
                run()
            return [Latency(time, time, 0.0, time / times[0], 20) for time in times[: len(runs)]]

        monkeypatch.setattr(choose_activations, "interleave", interleave)

    return of


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def taken(result):
    stage = result.compressed.record[-1].get("activations")
    return stage, result.notes["activations"]


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ((3.0, 2.0, 1.0), 8),
        ((3.0, 1.0, 2.0), "dynamic"),
        ((1.0, 2.0, 3.0), None),
        ((1.04, 1.5, 1.0), None),
        ((1.10, 1.04, 1.0), "dynamic"),
    ],
)
def test_the_fastest_is_taken_and_of_equal_ones_the_nearest_to_floating_point(timed, net, times, wanted):
    timed(*times)
    found, said = taken(attar.quantize(net, torch.randn(64, 16), bits=8, activations="auto"))
    assert found == wanted
    words = choose_activations.CHOICES[wanted]
    assert said.startswith(f"auto took {words}: for one example on one thread floating point {times[0]:.3g} ms")


def test_a_choice_that_loses_too_much_is_not_taken(timed, net):
    timed(3.0, 2.0, 1.0)
    # Two examples of 64 reach 10,000 times as far; a batch of one has a range of its own.
    x = torch.randn(64, 16)
    x[5], x[40] = x[5] * 1e4, x[40] * 1e4
    options = {"task": "classification", "tolerance": {"equal_predictions": 0.9}, "batch": 1, "observer": "minmax"}
    options["correct_bias"] = False  # the mean error is that of the two
    result = attar.quantize(net, x, bits=8, activations="auto", **options)
    found, said = taken(result)
    assert found == "dynamic"
    assert "static loses too much" in said


def test_what_the_weights_lose_rules_nothing_out(timed, net):
    timed(3.0, 2.0, 1.0)
    found, _ = taken(attar.quantize(net, torch.randn(64, 16), bits=2, activations="auto", tolerance={"error": 1e-4}))
    assert found == 8


def test_choices_that_change_nothing_are_not_measured(timed):
    timed(2.0, 1.0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 1)).eval()
    result = attar.quantize(net, torch.randn(64, 3, 9), bits=8, activations="auto")
    assert len(repr(result)) < 120, "a notebook prints it"
    found, said = taken(result)
    assert found == 8
    assert "dynamic" not in said
    assert not any("dynamic" in each for each in result.compressed.warnings)


def test_it_is_measured_here(net, tmp_path):
    report = attar.quantize(net, torch.randn(64, 16), bits=8, activations="auto").save(tmp_path / "m.attar")
    assert report["notes"]["activations"].startswith("auto took ")
    assert report["parity"]["equal_predictions"] >= 0.998


def test_one_thread_is_timed_as_the_note_says(net, timed, monkeypatch):
    threads = []

    class Recorded(choose_activations.Session):
        def __init__(self, *args, **options):
            threads.append(options.get("threads"))
            super().__init__(*args, **options)

    monkeypatch.setattr(choose_activations, "Session", Recorded)
    timed(3.0, 2.0, 1.0)
    assert "one thread" in taken(attar.quantize(net, torch.randn(64, 16), bits=8, activations="auto"))[1]
    assert threads == [1, 1, 1]


@pytest.mark.parametrize("option", [{"activations": "auto"}, {"max_ms": 1000.0}])
def test_the_minutes_of_a_reconstruction_are_those_of_all_modules(option, monkeypatch):
    """Guards the time that is asked for: three modules are reconstructed, one for each kind of activations."""
    given = []

    def improve(self, model, *_, **__):
        given.append(self.minutes)
        return model

    monkeypatch.setattr(Reconstruct, "improve", improve)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    attar.quantize(net, torch.randn(64, 16), bits=4, reconstruct={"minutes": 6}, tolerance=None, **option)
    assert given == [2.0] * 3
