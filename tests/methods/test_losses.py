import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.core.errors import SpecError
from attar.methods.distill.cross_entropy import CrossEntropy
from attar.methods.distill.kl import Kl
from attar.methods.distill.soft_cross_entropy import SoftCrossEntropy
from attar.methods.distill.soft_targets import shares
from attar.train.batch import Batch
from attar.train.schedule import Schedule
from attar.work.objective import Sources

SOFT = (Kl, SoftCrossEntropy)


def sources(outputs, teachers, targets=None, progress=0.0):
    return Sources(outputs, (outputs,), Batch((outputs.detach(),), targets), teachers, progress)


def logits(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 3


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(temperature=st.floats(1, 20), seed=st.integers(0, 999), shape=st.sampled_from([(4, 10), (2, 3, 7), (1, 2)]))
def test_the_soft_losses_are_their_formulas(temperature, seed, shape):
    z, t = logits(*shape, seed=seed), logits(*shape, seed=seed + 1)
    p, q = softmax(t.numpy() / temperature), softmax(z.numpy() / temperature)
    kl = temperature**2 * np.mean(np.sum(p * (np.log(p) - np.log(q)), -1))
    cross = temperature**2 * np.mean(-np.sum(p * np.log(q), -1))
    both = [float(loss(teacher="t", temperature=temperature).build(None)(sources(z, {"t": t}))) for loss in SOFT]
    assert both == pytest.approx([kl, cross], rel=1e-9, abs=1e-9)


def test_float32_is_near_float64():
    z, t = logits(64, 100), logits(64, 100, seed=1)
    exact = Kl(teacher="t").build(None)(sources(z, {"t": t}))
    quick = Kl(teacher="t").build(None)(sources(z.float(), {"t": t.float()}))
    assert quick.dtype == torch.float32
    assert float(quick) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("loss", SOFT)
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_where_student_and_teacher_agree_it_is_flat(loss, temperature):
    z = logits(8, 10).requires_grad_()
    found = loss(teacher="t", temperature=temperature).build(None)(sources(z, {"t": z.detach() + 3}))
    found.backward()
    assert z.grad.abs().max() < 1e-12
    if loss is Kl:
        assert float(found.detach()) == pytest.approx(0, abs=1e-12)


def test_for_a_high_temperature_it_is_the_distance_of_logits():
    z, t = logits(8, 10), logits(8, 10, seed=1)
    apart = (z - z.mean(-1, keepdim=True)) - (t - t.mean(-1, keepdim=True))
    found = Kl(teacher="t", temperature=1e4).build(None)(sources(z, {"t": t}))
    assert float(found) == pytest.approx(float(apart.square().sum(-1).mean() / (2 * 10)), rel=1e-3)


def test_the_gradient_is_that_of_either():
    z, t = logits(8, 10).requires_grad_(), logits(8, 10, seed=1)
    grads = [torch.autograd.grad(loss(teacher="t").build(None)(sources(z, {"t": t})), z)[0] for loss in SOFT]
    torch.testing.assert_close(*grads)
    p = softmax(t.numpy() / 4) - softmax(z.detach().numpy() / 4)
    assert np.allclose(grads[0].numpy(), -4 * p / 8)


@pytest.mark.parametrize("loss", SOFT)
def test_an_ensemble_is_the_mean_of_probabilities(loss):
    z, one, two = logits(5, 7), logits(5, 7, seed=1), logits(5, 7, seed=2)
    mixed = torch.log(0.25 * torch.softmax(one / 3, -1) + 0.75 * torch.softmax(two / 3, -1)) * 3
    expected = loss(teacher="m", temperature=3).build(None)(sources(z, {"m": mixed}))
    weighted = loss(teacher={"a": 1, "b": 3}, temperature=3)
    assert weighted.teachers() == ("a", "b")
    torch.testing.assert_close(weighted.build(None)(sources(z, {"a": one, "b": two})), expected)
    even = loss(teacher=["a", "b"], temperature=3).build(None)(sources(z, {"a": one, "b": one}))
    torch.testing.assert_close(even, loss(teacher="a", temperature=3).build(None)(sources(z, {"a": one})))


def test_shares_sum_to_one():
    assert shares("a") == {"a": 1.0}
    assert shares(("a", "b")) == {"a": 0.5, "b": 0.5}
    assert shares({"a": 1.0, "b": 3.0}) == {"a": 0.25, "b": 0.75}
    with pytest.raises(SpecError, match="needs a teacher"):
        Kl(teacher=()).teachers()


def test_a_temperature_may_change():
    z, t = logits(5, 7), logits(5, 7, seed=1)
    moving = Kl(teacher="t", temperature=Schedule(start=8, stop=2)).build(None)
    for progress, temperature in ((0.0, 8.0), (0.5, 5.0), (1.0, 2.0)):
        fixed = Kl(teacher="t", temperature=temperature).build(None)
        assert float(moving(sources(z, {"t": t}, progress=progress))) == float(fixed(sources(z, {"t": t})))
    with pytest.raises(ValueError, match="greater than 0"):
        Kl(teacher="t", temperature=0.0)


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(SpecError, match=r"'t' gave outputs of shape \(4, 9\), the student \(4, 10\)"):
        Kl(teacher="t").build(None)(sources(logits(4, 10), {"t": logits(4, 9)}))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_hard_loss_is_its_formula(smoothing):
    z, y = logits(3, 4, 6), torch.randint(0, 6, (3, 4), generator=torch.Generator().manual_seed(0))
    target = np.eye(6)[y.numpy()] * (1 - smoothing) + smoothing / 6
    expected = -np.mean(np.sum(target * np.log(softmax(z.numpy())), -1))
    found = CrossEntropy(label_smoothing=smoothing).build(None)(sources(z, {}, y))
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "needs labels"),
        (torch.zeros(4), r"whole targets .* \(4,\); torch.float32"),
        (torch.zeros(4, 1, dtype=torch.int64), r"\(4, 1\) arrived"),
        (torch.tensor([0, 1, 10, -1]), r"between -1 and 10; .* 10 classes"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(SpecError, match=message):
        CrossEntropy().build(None)(sources(logits(4, 10), {}, targets))


def test_targets_that_are_no_classes_pad_nothing():
    z, t = logits(4, 10), logits(4, 10, seed=1)
    plain = Kl(teacher="t").build(None)(sources(z, {"t": t}))
    for targets in (torch.full((4,), -100.0), torch.full((4, 2), -100)):
        assert float(Kl(teacher="t").build(None)(sources(z, {"t": t}, targets))) == float(plain)


def test_uniform_logits_lose_the_logarithm_of_the_classes():
    found = CrossEntropy().build(None)(sources(torch.zeros(4, 10), {}, torch.arange(4)))
    assert float(found) == pytest.approx(math.log(10))
