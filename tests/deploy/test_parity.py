from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attar._src.core.errors import ParityError
from attar._src.deploy import parity as bounds
from attar._src.deploy.parity import Parity, _same_winner, compared
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs


def parity(**changes):
    figures = {
        "largest_difference": 1e-6,
        "largest_output": 10.0,
        "mean_difference": 1e-7,
        "equal_predictions": 1.0,
        "mean_output": 2.0,
    }
    return Parity(examples=100, **{**figures, **changes})


def test_floating_point_may_differ_by_the_order_of_summation_only():
    assert parity().check("f", integers=False)
    with pytest.raises(ParityError, match=r"differ by up to 0\.5"):
        parity(largest_difference=0.5).check("f", integers=False)


def test_integers_may_tip_but_predictions_agree():
    assert parity(largest_difference=0.5, mean_difference=0.01).check("f", integers=True)
    with pytest.raises(ParityError, match=r"97\.00%"):
        parity(equal_predictions=0.97).check("f", integers=True)


@pytest.mark.parametrize("integers", [True, False])
def test_nothing_infinite_passes(integers):
    with pytest.raises(ParityError, match="not finite"):
        parity(largest_difference=float("inf")).check("f", integers=integers)


def test_integers_may_not_be_far_off_however_predictions_fall():
    with pytest.raises(ParityError, match=r"differ by 0\.5 on average where their mean is 2"):
        parity(largest_difference=0.5, mean_difference=0.5).check("f", integers=True)


def test_ties_are_equal_and_images_are_judged_along_their_channels():
    want = np.array([[1.0, 1.0, 0.0], [3.0, 0.0, 2.0]])
    got = np.array([[0.9, 1.1, 0.0], [0.0, 0.0, 1.0]])
    assert _same_winner(got, want).reshape(-1).tolist() == [True, False]
    image = np.zeros((1, 2, 3, 4))
    image[0, 1] = 1.0
    assert _same_winner(image, image).shape == (1, 1, 3, 4)
    other = image.copy()
    other[0, 0, 0, 0] = 5.0
    assert _same_winner(other, image).sum() == 11


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
    few = Parity(16, 0.1, 1.0, 0.01, 1.0, 15 / 16)
    assert few.check("few", integers=True) is few
    with pytest.raises(ParityError, match=r"87\.50% of 16 examples, 94% are"):
        replace(few, equal_predictions=14 / 16).check("few", integers=True)
    with pytest.raises(ParityError, match=r"97\.00% of 100 examples, 98% are"):
        replace(few, examples=100, equal_predictions=0.97).check("many", integers=True)
