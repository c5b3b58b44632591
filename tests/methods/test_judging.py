"""Faults guarded: what training gained is thrown away for the chance of a few inputs, or what it broke is kept."""

import math

import pytest
import torch

from attar._src.methods.quantize.ptq.reconstruct.feeding import held_out, in_small_parts, parts_that_judge, shuffled
from attar._src.methods.quantize.ptq.reconstruct.judging import Errors, joined
from attar._src.work.calibration_inputs import CalibrationInputs


def test_less_error_where_nothing_is_trained_is_kept_whatever_training_says():
    before = Errors((0.1, 0.3, 0.2), 0.2)
    assert Errors((0.1, 0.3, 0.19), 0.5).improves(before)
    assert not before.improves(before)


def test_within_chance_training_decides():
    before = Errors((0.1, 0.3), 0.2)
    within, worse = (0.2, 0.21), (0.12, 0.32)  # differences 0.1 and -0.09: 0.005 with a standard error of 0.095
    assert Errors(within, 0.1).improves(before)
    assert not Errors(within, 0.2).improves(before)
    assert not Errors(worse, 0.1).improves(before)
    # A single part has no spread, and what is no number is no improvement.
    assert not Errors((0.2,), 0.1).improves(Errors((0.1,), 0.2))
    assert not Errors((math.nan, 0.1), 0.1).improves(before)


@pytest.mark.parametrize("after", [(math.inf, math.inf), (math.inf, 0.1), (math.nan, 0.1)])
@pytest.mark.parametrize("before", [(0.2, 0.2), (0.2, math.inf)])
def test_what_diverged_is_never_kept(after, before):
    """Guards against an AttributeError of ``statistics`` that ends a reconstruction after all its work."""
    assert not Errors(after, 0.1).improves(Errors(before, 0.2))
    assert Errors((0.2, 0.2), 0.1).improves(Errors((0.2, math.inf), 0.1))


def test_errors_of_several_graphs_are_one():
    both = joined([Errors((0.1, 0.2), 0.3), Errors((0.4,), 0.5)])
    assert (both.judged, both.trained) == ((0.1, 0.2, 0.4), 0.8)
    assert both.plus(1).mean == sum((1.1, 1.2, 1.4)) / 3


def test_what_judges_is_in_small_parts_and_never_trained_on():
    x = torch.arange(1024.0)[:, None]
    inputs = shuffled(CalibrationInputs(tuple((part,) for part in x.split(64))), 32, 0)
    parts, count = in_small_parts(inputs, held_out(inputs))
    trained, judging = parts_that_judge(len(parts.batches), count)
    assert [len(parts.batches[k][0]) for k in judging] == [8] * 16
    assert len(trained) == 8
    seen = [set(torch.cat([parts.batches[k][0] for k in places]).flatten().tolist()) for places in (trained, judging)]
    assert seen[0].isdisjoint(seen[1])
    every = torch.cat([batch[0] for batch in parts.batches]).flatten()
    assert sorted(every.tolist()) == list(range(1024))


def test_few_batches_both_train_and_judge():
    inputs = CalibrationInputs(((torch.randn(8, 2),), (torch.randn(8, 2),)))
    parts, count = in_small_parts(inputs, held_out(inputs))
    assert count == 0
    assert parts_that_judge(len(parts.batches), count) == (range(2), range(2))
