import ast

import pytest
import torch
from torch import nn

import attar
from attar._src.core.errors import DataError, SpecError
from attar._src.deploy.choices import best_options
from attar._src.deploy.choices.best_options import Search
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
    return found, found.run(PostTrainingQuantize(**{"bits": 3, "scales": "absmax", **fields})), clock


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
    assert best.stage is found.tried[0].stage
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


def test_sorted_data_calibrate_the_ranges_of_all():
    """Guards against the last examples held out, whose range is not that of the others, and kept out of the result."""
    torch.manual_seed(1)
    x = torch.cat([torch.randn(64, 12) * scale for scale in (1, 1, 1, 6)])
    options = {"bits": 8, "activations": 8, "best": True, "minutes": 0.1, "tolerance": None}
    found = []
    for data in (x, x[torch.randperm(256)]):
        made, net = attar.quantize(network(), data, **options), network()
        with torch.no_grad():
            found.append(float(((made.module(x) - net(x)) ** 2).sum() / net(x).var(0).sum() / len(x)))
    assert found[0] < 0.01
    assert found[0] < 2 * found[1]


@pytest.mark.parametrize("fields", [{}, {"symmetric": False, "activations": 8}])
def test_the_options_of_the_note_give_the_same_bytes(fields, tmp_path, monkeypatch):
    """Guards the note: what it says to write makes the same of all examples, by a scheme and with reconstruction."""
    monkeypatch.setattr(best_options, "Reconstruct", lambda minutes: Reconstruct(steps=40))
    if not fields:
        monkeypatch.setattr(Search, "_reconstruct", lambda _: None)
    torch.manual_seed(3)
    x = torch.randn(128, 12)
    made = attar.quantize(network(), x, bits=3, scales="absmax", best=True, minutes=10, tolerance=None, **fields)
    report = made.save(tmp_path / "best.attar")
    words = report["notes"]["best"].rpartition(" and with ")[2]
    call = ast.parse(f"quantize({words})", mode="eval").body
    options = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    assert ("reconstruct" in options) is ("symmetric" in fields)
    again = attar.quantize(network(), x, tolerance=None, **{"bits": 3, "scales": "absmax", **fields, **options})
    assert again.save(tmp_path / "again.attar")["sha256"] == report["sha256"]


def test_what_cannot_be_reconstructed_is_kept_and_the_note_says_why():
    """Guards against an error at the end of the minutes: weights of 8 bits leave nothing to improve."""
    made = attar.quantize(network(), torch.randn(64, 12), best=True, minutes=0.5, overrides={"*": 8}, tolerance=None)
    assert "not possible: " in made.notes["best"]
    assert "finds no weight to improve (0.weight" in made.notes["best"]


def test_reconstruction_that_time_ends_keeps_the_units_that_are_done(monkeypatch):
    """Guards against minutes of work that are dropped."""
    monkeypatch.setattr(best_options, "Reconstruct", lambda minutes: Reconstruct(steps=30))
    for share in ("_SOLVERS", "_FIRST_SEEING"):
        monkeypatch.setattr(best_options, share, 0.0)
    left = iter([1e9])
    monkeypatch.setattr(Search, "_left", lambda _: next(left, -1.0))
    found, best, _ = search(1e6)
    tried = next(each for each in found.tried if "reconstruct" in each.changes)
    assert not tried.complete
    assert [*tried.model.record[-1]["errors"]] == ["relu", "all"]
    assert tried.loss < found.tried[0].loss
    assert best is tried, "there is no time to do it again with all examples"
    assert "no time for all" in found.note()


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
        ({"best": True, "minutes": 1, "size": 3.0}, "leave out reconstruct=, size="),
        ({"best": True, "minutes": 1, "reconstruct": True}, "leave out reconstruct"),
    ],
)
def test_options_that_do_not_go_together(options, said):
    with pytest.raises(SpecError, match=said):
        attar.quantize(network(), torch.randn(64, 12), **options)


def test_too_few_examples():
    with pytest.raises(DataError, match="give 8 or more, got 4"):
        attar.quantize(network(), torch.randn(4, 12), best=True, minutes=1)
