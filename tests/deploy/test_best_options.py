import pytest
import torch
from torch import nn

import attar
from attar._src.core.errors import DataError, SpecError
from attar._src.deploy.choices import best_options
from attar._src.deploy.choices.best_options import Search, hold_out
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context


class Clock:
    """Every look takes a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5)).eval()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Reconstruction takes a step, not the minutes of a clock that runs too fast."""
    made = []
    monkeypatch.setattr(best_options, "Reconstruct", lambda minutes: made.append(minutes) or Reconstruct(steps=1))
    return made


def search(seconds, **fields):
    net, clock = network(), Clock()
    inputs = CalibrationInputs(tuple((torch.randn(16, 12),) for _ in range(8)))
    found = Search.of(CompressedModel.of(trace(net, inputs.batches[0])), Context(inputs), seconds / 60, 0.0, clock)
    return found, found.run(PostTrainingQuantize(**{"bits": 3, **fields})), clock


def test_the_least_loss_on_held_out_inputs_wins_and_ties_go_to_the_smaller_file():
    """Guards against taking what was tried last, or first."""
    found, best, _ = search(10_000, activations=8)
    least = min(each.loss for each in found.tried)
    assert best.loss <= 1.05 * least
    assert all(each.coded_bytes >= best.coded_bytes for each in found.tried if each.loss <= 1.05 * least)
    assert best.loss < found.tried[0].loss
    names = " ".join(each.changes for each in found.tried)
    for each in ("as given", "mse", "gptq", "rate", "apot", "codebook", "equalize", "observer=kl", "reconstruct"):
        assert each in names
    assert all(each.changes in found.note() for each in found.tried)
    assert not [each for each in found.skipped if "reconstruct" not in each]


def test_without_time_the_options_as_given_are_taken_and_the_rest_is_named():
    """Guards the budget: nothing may begin that is expected to end behind it."""
    found, best, _ = search(1)
    assert best is found.tried[0]
    assert len(found.tried) == 1
    assert "left out for time: scales=mse, scales=gptq" in found.note()


@pytest.mark.parametrize("seconds", [20, 40, 80])
def test_the_time_is_kept(seconds, short):
    """Guards the budget: solvers end about three fifths of it, and reconstruction gets less than what is left."""
    found, _, _ = search(seconds)
    assert found.tried
    assert all(60 * minutes <= 0.5 * seconds for minutes in short[:1])
    solved = [each for each in found.tried if "reconstruct" not in each.changes]
    assert sum(each.seconds for each in solved[1:]) <= 0.7 * seconds


def test_one_of_four_is_held_out():
    for batches, size in ((8, 4), (1, 16), (2, 3)):
        inputs = CalibrationInputs(tuple((torch.arange(size)[:, None] + 100 * i,) for i in range(batches)))
        learn, held = hold_out(inputs)
        joined = torch.cat([batch[0] for part in (learn, held) for batch in part.batches])
        assert torch.equal(joined, torch.cat([batch[0] for batch in inputs.batches]))
        assert held.examples >= 1
        assert abs(held.examples / inputs.examples - 0.25) < 0.1


def test_the_result_and_the_report_say_what_was_tried(tmp_path):
    torch.manual_seed(0)
    result = attar.quantize(network(), torch.randn(64, 12), bits=3, best=True, minutes=0.2, tolerance=None)
    report = result.save(tmp_path / "m.attar")
    assert report["notes"]["best"].startswith("took ")
    assert "as given" in report["notes"]["best"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"best": True}, "add minutes=5"),
        ({"minutes": 5}, "time for best=True"),
        ({"best": True, "minutes": 1, "size": 3.0}, "leave out reconstruct, size"),
        ({"best": True, "minutes": 1, "reconstruct": True}, "leave out reconstruct"),
    ],
)
def test_options_that_do_not_go_together(options, said):
    with pytest.raises(SpecError, match=said):
        attar.quantize(network(), torch.randn(64, 12), **options)


def test_too_few_examples():
    with pytest.raises(DataError, match="give 8 or more, got 4"):
        attar.quantize(network(), torch.randn(4, 12), best=True, minutes=1)
