"""The term that learns outputs beside the main one: faults guarded are outputs that explode it, or escape it."""

import pytest
import torch
from tests.methods.toys import fresh

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.other_outputs import OtherOutputs
from attar._src.train.batch import Batch
from attar._src.work.objective import LossInputs

TERM = OtherOutputs(teacher="big")
MAIN = torch.zeros(16, 3, requires_grad=True)


def given(ours, theirs, main=MAIN):
    every = {"logits": main, **ours}
    known = {"big": {"logits": torch.zeros(16, 3), **theirs}}
    batch = Batch((torch.zeros(16, 1),), None)
    return LossInputs(main, tuple(every.values()), batch, {"big": MAIN}, 0.5, teacher_outputs=known, names=tuple(every))


def built(*batches):
    loss = TERM.build(fresh())
    loss.prepare(batches[0])
    return [loss(each) for each in batches]


def test_a_batch_of_nothing_but_zeros_is_compared_by_the_variance_of_the_others():
    """A sparse map: by its own variance the loss of that batch would be 1e33."""
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(16, 5, generator=draw)
    ours = torch.zeros(16, 5, requires_grad=True)
    first, second = built(given({"map": ours}, {"map": wanted}), given({"map": ours + 1}, {"map": 0 * wanted}))
    assert 0.5 < float(first.detach()) < 2
    assert 0.5 < float(second.detach()) < 4
    (nothing,) = built(given({"map": ours + 1}, {"map": 0 * wanted}))
    assert float(nothing.detach()) == 0


@pytest.mark.parametrize(("mean", "spread"), [(101325.0, 50.0), (300.0, 0.2)])
def test_a_large_mean_is_no_signal(mean, spread):
    wanted = mean + spread * torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    ours = torch.full((16, 4), mean, requires_grad=True)
    (loss,) = built(given({"value": ours}, {"value": wanted}))
    assert float(loss.detach()) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("mask", [-torch.inf, torch.finfo(torch.float32).min])
def test_a_mask_is_no_error_and_no_signal(mask):
    wanted = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    ours = torch.zeros(16, 4, requires_grad=True)
    hidden = torch.arange(4) == 2
    masked = [torch.where(hidden, mask, each) for each in (ours, wanted)]
    (loss,) = built(given({"value": masked[0]}, {"value": masked[1]}))
    (gradient,) = torch.autograd.grad(loss, ours)
    assert 0.5 < float(loss.detach()) < 1.2
    assert torch.isfinite(gradient).all()
    assert gradient[:, 0].abs().min() > 0


def test_outputs_are_paired_by_name():
    """What training alone returns in between is not taken for the next output."""
    wanted = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    between = torch.zeros(16, 4, requires_grad=True)
    ours = torch.zeros(16, 4, requires_grad=True)
    loss = TERM.build(fresh())
    loss.prepare(given({"place": ours}, {"place": wanted}))
    found = loss(given({"auxiliary": between, "place": ours}, {"place": wanted}))
    gradients = torch.autograd.grad(found, [ours, between], allow_unused=True)
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None


def test_a_second_name_of_the_main_output_and_integers_are_no_others():
    same, count = given({"same": MAIN}, {"same": MAIN.detach()}), torch.arange(16)
    (found,) = built(same)
    assert float(found.detach()) == 0
    (found,) = built(given({"first": count}, {"first": count}))
    assert float(found.detach()) == 0


def test_a_teacher_without_the_outputs_is_refused():
    ours = torch.zeros(16, 4, requires_grad=True)
    with pytest.raises(SpecError, match="'big' has none of the student's outputs 'place'"):
        built(given({"place": ours}, {}))
    with pytest.raises(SpecError, match=r"output 'place' of shape \(16, 4\) is \(16, 5\) in teacher 'big'"):
        built(given({"place": ours}, {"place": torch.zeros(16, 5)}))
