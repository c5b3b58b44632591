"""What judges outputs: faults guarded are a ruined network that passes, and a slow metric called for nothing."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import attar
from attar._src.core.errors import DataError
from attar._src.measure.chance import Chance
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.measure.metric import find
from attar._src.measure.metric_change import metric_change
from attar._src.methods.allocate.judge import Judge, Labelled, ModelOutputs
from attar._src.work.compressed_model import FileInfo
from attar._src.work.context import JudgedExamples


class Counted:
    """A metric of one's own that counts its calls, and knows a constant answer if one is given."""

    name = "right"
    larger_is_better = True

    def __init__(self, constant=None):
        self.calls = 0
        if constant is not None:
            self.chance = lambda *_: Chance("one class", constant, constant)

    def __call__(self, outputs, targets):
        self.calls += 1
        return float((outputs.argmax(1) == targets).mean())


def judged(metric, *, right=1.0):
    """A judge on 100 examples of four classes, of which the reference predicts a share rightly, and the targets."""
    labels = torch.arange(100) % 4
    scores = torch.eye(4)[torch.where(torch.arange(100) < 100 * right, labels, (labels + 1) % 4)]
    inputs = SimpleNamespace(batches=[(scores,)], targets=(labels,))
    known = Labelled(None if metric is None else find(metric, FROM_SHAPES), FROM_SHAPES, given=True)
    return Judge.of(lambda x: x, inputs, "scores", known), scores.numpy()


def changed(scores, count):
    """The same outputs, of which the last ``count`` are another class."""
    found = scores.copy()
    found[len(scores) - count :] = np.roll(found[len(scores) - count :], 1, axis=1)
    return found


def test_a_metric_is_called_once_a_file():
    """Guards against the standard error of a change, which needs twenty calls more, where nobody reads it."""
    own = Counted()
    judge, scores = judged(own)
    assert own.calls == 2
    before = own.calls
    assert judge.judge([ModelOutputs(changed(scores, 30))]).metric == pytest.approx(0.7)
    assert own.calls == before + 1
    batches = [(scores, changed(scores, 30), np.arange(100) % 4)]
    assert metric_change(find(own), batches, FROM_SHAPES, given=True, noise=False).standard_error is None
    assert own.calls == before + 3
    assert metric_change(find(own), batches, FROM_SHAPES, given=True).standard_error > 0
    assert own.calls == before + 25


def test_a_metric_that_is_not_finite_is_none():
    judge, scores = judged(lambda outputs, _: float(outputs.max()))
    assert judge.judge([ModelOutputs(np.full_like(scores, np.inf))]).metric is None
    with pytest.raises(DataError, match="whether more of it is better"):
        judge.demand_direction()


@pytest.mark.parametrize(
    ("metric", "right", "kept", "lost"),
    [
        # Of 100 points a constant answer has 25, so that half of what is known is 37.5.
        (None, 1.0, 37, 38),
        # One of whose constant answer nothing is known: predictions.
        (Counted(), 1.0, 50, 51),
        (Counted(constant=0.9), 1.0, 4, 6),
    ],
)
def test_half_of_what_is_known_may_be_lost(metric, right, kept, lost):
    judge, scores = judged(metric, right=right)
    assert not judge.ruins(judge.judge([ModelOutputs(changed(scores, kept))]))
    assert judge.ruins(judge.judge([ModelOutputs(changed(scores, lost))]))


def test_an_untrained_reference_has_nothing_to_lose():
    judge, scores = judged(None, right=0.26)
    assert judge.chance is not None
    assert not judge.ruins(judge.judge([ModelOutputs(changed(scores, 100))]))


def test_values_may_lose_half_of_their_variance():
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    inputs = SimpleNamespace(batches=[(values,)], targets=())
    judge = Judge.of(lambda x: x, inputs, "y", Labelled(task="regression"))
    wrong = values.numpy() + np.random.default_rng(0).normal(size=(200, 3))
    assert judge.ruins(judge.judge([ModelOutputs(wrong)]))
    assert not judge.ruins(judge.judge([ModelOutputs(values.numpy() + 0.5 * (wrong - values.numpy()))]))
    error = judge.judge([ModelOutputs(wrong)])
    assert judge.ruins(replace(error, error=0.51)) != judge.ruins(replace(error, error=0.49))


def test_a_metric_without_a_number_is_ruined():
    judge, scores = judged(None)
    assert judge.ruins(replace(judge.judge([ModelOutputs(scores)]), metric=None))


def test_what_is_known_of_outputs_is_put_together_in_one_place():
    """Guards against a judge that forgets the class axis, or the metric, that the user gave."""
    source = Path(attar.__file__).parent
    made = {path.name for path in source.rglob("*.py") if re.search(r"(?<!class )\bLabelled\(", path.read_text())}
    assert made == {"judge.py"}
    known = JudgedExamples(None, find("accuracy"), ClassLayout(axis=2, ignore_index=7), given=True)
    labelled = Labelled.of(known, FileInfo(task="segmentation", class_names=("a", "b")))
    assert (labelled.metric, labelled.layout, labelled.given) == (known.metric, known.layout, True)
    assert (labelled.task, labelled.classes) == ("segmentation", True)
    assert Labelled.of(known, None).task is None


def test_errors_are_those_of_all_outputs_in_floating_point():
    """Guards against layers that only a second output reads, whose bits cost nothing and were taken from them."""
    scores, prices = torch.randn(50, 4), torch.randn(50, 1)
    inputs = SimpleNamespace(batches=[(scores, prices)], targets=())
    judge = Judge.of(
        lambda x, y: {"price": y, "count": torch.ones(50, dtype=torch.int64), "logits": x}, inputs, "logits", Labelled()
    )
    off = prices.numpy() + 0.5 * prices.std(correction=0).item()
    made = {"price": off, "count": np.zeros(50, np.int64), "logits": scores.numpy()}
    seen = judge.judge([ModelOutputs.of(made)])
    assert seen.error == pytest.approx(0.25 / 2)
    assert seen.signal_to_noise_db == pytest.approx(10 * np.log10(8))
    assert seen.changed == 0
    assert not judge.ruins(seen)


def test_bits_are_kept_where_only_a_second_output_reads(tmp_path):
    """Guards against a head without metric that gets two bits under a target of bytes, and an output that is noise."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.logits, self.price = (torch.nn.Linear(a, b) for a, b in ((16, 128), (128, 5), (128, 12)))

        def forward(self, x):
            hidden = self.body(x).relu()
            return {"logits": self.logits(hidden), "price": self.price(hidden)}

    torch.manual_seed(0)
    net, x = Two().eval(), torch.randn(256, 16)
    attar.quantize(net, x, size=3.5, scales="gptq", tolerance=None).save(tmp_path / "net.attar")
    made = attar.Session(tmp_path / "net.attar").run({"x": x.numpy()})
    with torch.no_grad():
        wanted = net(x)
    for name, want in wanted.items():
        want = want.numpy()
        noise = ((made[name] - want) ** 2).sum() / ((want - want.mean(0)) ** 2).sum()
        assert -10 * np.log10(noise) > 10, name
