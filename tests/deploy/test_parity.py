import numpy as np
import pytest
import torch
from torch import nn

from attar._src.core.errors import ParityError
from attar._src.deploy import parity as bounds
from attar._src.deploy.parity import Parity, compared
from attar._src.measure.difference import INTEGERS, SCORES, VALUES, Difference
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs


def parity(got, want, kind=VALUES, more=()):
    """The parity of one output, or of several."""
    outputs = {}
    for name, (each, right, what) in {"y": (got, want, kind), **dict(more)}.items():
        seen = Difference()
        seen.add(np.asarray(each), np.asarray(right))
        outputs[name] = what, seen
    return Parity(100, 0, 0, 0, 0, 1.0, outputs)


@pytest.fixture
def want(rng):
    return rng.normal(size=(100, 10)) * 2


def test_floating_point_may_differ_by_the_order_of_summation_only(want):
    assert parity(want + 1e-6, want).check("f", integers=False)
    with pytest.raises(ParityError, match=r"differ by up to 0\.5"):
        parity(want + 0.5 * (want == want.max()), want).check("f", integers=False)


def test_integers_may_tip_but_predictions_agree(want):
    tipped = want.copy()
    tipped[:2, 3] += 0.4
    assert parity(tipped, want, SCORES).check("f", integers=True)
    wrong = want.copy()
    wrong[:3] = np.roll(wrong[:3], 1, axis=1)
    with pytest.raises(ParityError, match=r"97\.00% of 100 positions"):
        parity(wrong, want, SCORES).check("f", integers=True)


def test_the_predictions_of_what_has_no_scores_are_not_judged(want):
    # Near-equal values: any rounding changes which is the largest.
    flat = 5 + 1e-3 * want
    moved = 5 + 1e-3 * np.roll(want, 1, axis=1)
    assert parity(moved, flat, VALUES).check("f", integers=True)
    # Nor are leads that the mean difference explains.
    assert parity(moved, flat, SCORES).outputs["y"][1].agreeing < 50
    near = flat + 1e-3 * np.where(np.arange(10) % 2, 0.5, -0.5)
    assert parity(near, flat, SCORES).check("f", integers=True)


@pytest.mark.parametrize("integers", [True, False])
def test_nothing_infinite_passes(want, integers):
    broken = want.copy()
    broken[3, 4] = np.inf
    with pytest.raises(ParityError, match="not finite"):
        parity(broken, want).check("f", integers=integers)
    broken[3, 4] = np.nan
    with pytest.raises(ParityError, match="not finite"):
        parity(broken, broken).check("f", integers=integers)


@pytest.mark.parametrize("integers", [True, False])
def test_a_mask_of_infinities_is_no_fault(want, integers):
    masked = np.where(want > 2, -np.inf, want)
    assert parity(masked, masked).check("f", integers=integers)


def test_integers_may_not_be_far_off_however_predictions_fall(want):
    with pytest.raises(ParityError, match=r"differ by 0\.5 on average where their mean is"):
        parity(want + 0.5, want).check("f", integers=True)


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("kind", [np.int64, np.bool_])
def test_integer_outputs_are_equal_or_not_however_far_apart(rng, kind, integers):
    want = rng.integers(0, 2, 200).astype(kind)
    got = want.copy()
    got[:4] = 1 - want[:4].astype(np.int64)
    assert parity(got, want, INTEGERS).check("f", integers=integers)
    # Rounded values tie, so that the indices of a topk may differ in more places.
    wrong = 48 if integers else 8
    got[:wrong] = 1 - want[:wrong].astype(np.int64)
    with pytest.raises(ParityError, match=rf"{100 - wrong / 2:.2f}% of the integers agree"):
        parity(got, want, INTEGERS).check("f", integers=integers)


def test_a_small_output_is_judged_beside_a_large_one(want):
    small = 1e-2 * want
    with pytest.raises(ParityError, match="output 'small': outputs differ by"):
        parity(want, want, more={"small": (small + 0.01, small, VALUES)}.items()).check("f", integers=True)


@pytest.mark.parametrize("shape", [(), (0, 3), (0,), (4, 0)])
def test_scalars_and_empty_outputs_pass(shape):
    assert parity(np.zeros(shape), np.zeros(shape), more={}.items()).outputs["y"][1].elements == np.prod(shape)
    assert parity(np.zeros(shape), np.zeros(shape)).check("f", integers=True).check("f", integers=False)


def test_a_large_module_is_compared_on_fewer_examples(monkeypatch):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)), torch.randn(600, 64)
    traced = trace(net, (x[:2],))
    inputs = CalibrationInputs(tuple((part,) for part in x.split(64)), ("input",))
    one = 2 * 64 * 72
    assert compared(inputs, traced.graph, cut=True).examples == bounds.EXAMPLES
    for operations, examples in ((100 * one, 100), (one, bounds.ENOUGH)):
        monkeypatch.setattr(bounds, "OPERATIONS", operations)
        assert compared(inputs, traced.graph, cut=True).examples == examples
    assert compared(inputs, traced.graph, cut=True, share=4).examples == bounds.ENOUGH // 4
    # A graph of one batch size takes whole batches.
    assert compared(inputs, traced.graph, cut=False).examples == 64


def test_recurrent_layers_count(monkeypatch):
    net, x = nn.LSTM(8, 16, batch_first=True), torch.randn(64, 10, 8)
    traced, inputs = trace(net, (x[:2],)), CalibrationInputs(((x,),), ("input",))
    monkeypatch.setattr(bounds, "OPERATIONS", 20 * 10 * 2 * 4 * 16 * (8 + 16))
    assert compared(inputs, traced.graph, cut=True).examples == 20


def test_one_tie_of_few_examples_is_no_fault():
    want = 10 + 5 * np.eye(10)[np.arange(16) % 10]
    few = want.copy()
    few[:1] = np.roll(few[:1], 1, axis=1)
    assert parity(few, want, SCORES).check("few", integers=True)
    few[:2] = np.roll(want[:2], 1, axis=1)
    with pytest.raises(ParityError, match=r"87\.50% of 16 positions, 94% are"):
        parity(few, want, SCORES).check("few", integers=True)
