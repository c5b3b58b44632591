import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.measure.class_layout import ClassLayout
from attar._src.methods.objectives.cross_entropy import CrossEntropy
from attar._src.methods.objectives.dist import Dist
from attar._src.methods.objectives.dkd import Dkd
from attar._src.methods.objectives.kl import Kl, ReverseKl
from attar._src.methods.objectives.layers.attention import Attention
from attar._src.methods.objectives.layers.hint import Hint
from attar._src.methods.objectives.mse_logits import MseLogits
from attar._src.methods.objectives.soft_cross_entropy import SoftCrossEntropy
from attar._src.methods.objectives.soft_targets import teacher_shares
from attar._src.train.batch import Batch
from attar._src.work.objective import LossInputs

SOFT = (Kl, SoftCrossEntropy)
ENSEMBLES = (Kl, ReverseKl, SoftCrossEntropy, Dkd, Dist)


def sources(outputs, teachers, targets=None, progress=0.0):
    return LossInputs(outputs, (outputs,), Batch((outputs.detach(),), targets), teachers, progress)


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
    given = replace(sources(z, {"t": t}), layout=ClassLayout(-1))
    both = [float(loss(teacher="t", temperature=temperature).build(None)(given)) for loss in SOFT]
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


@pytest.mark.parametrize("loss", ENSEMBLES)
def test_an_ensemble_is_the_mean_of_probabilities(loss):
    z, one, two, y = logits(5, 7), logits(5, 7, seed=1), logits(5, 7, seed=2), torch.arange(5)
    mixed = torch.log(0.25 * torch.softmax(one / 3, -1) + 0.75 * torch.softmax(two / 3, -1)) * 3
    expected = loss(teacher="m", temperature=3).build(None)(sources(z, {"m": mixed}, y))
    weighted = loss(teacher={"a": 1, "b": 3}, temperature=3)
    assert weighted.teachers() == ("a", "b")
    torch.testing.assert_close(weighted.build(None)(sources(z, {"a": one, "b": two}, y)), expected)
    even = loss(teacher=["a", "b"], temperature=3).build(None)(sources(z, {"a": one, "b": one}, y))
    torch.testing.assert_close(even, loss(teacher="a", temperature=3).build(None)(sources(z, {"a": one}, y)))


def test_shares_sum_to_one():
    assert teacher_shares("a") == {"a": 1.0}
    assert teacher_shares(("a", "b")) == {"a": 0.5, "b": 0.5}
    assert teacher_shares({"a": 1.0, "b": 3.0}) == {"a": 0.25, "b": 0.75}
    with pytest.raises(SpecError, match="needs a teacher"):
        Kl(teacher=()).teachers()


def test_a_temperature_of_zero_is_refused():
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
        (torch.zeros(4), r"integer targets, one class each; torch.float32 of \(4,\) .* binary_cross_entropy"),
        (torch.zeros(4, 1, dtype=torch.int64), r"\(4, 1\) arrived"),
        (torch.tensor([0, 1, 10, -1]), r"between -1 and 10, .* 10 classes"),
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


def test_an_ensemble_of_logits_is_their_mean():
    z, one, two = logits(5, 7), logits(5, 7, seed=1), logits(5, 7, seed=2)
    found = MseLogits(teacher={"a": 1, "b": 3}).build(None)(sources(z, {"a": one, "b": two}))
    assert float(found) == pytest.approx(float((z - 0.25 * one - 0.75 * two).square().mean()))
    with pytest.raises(SpecError, match="'t' gave outputs of shape"):
        MseLogits(teacher="t").build(None)(sources(z, {"t": logits(5, 8)}))


def test_decoupled_distillation_put_together_again_is_kl():
    # Zhao et al. 2022, equation 6: KD = TCKD + (1 - p_target) NCKD.
    z, t, y = logits(1, 7), logits(1, 7, seed=1), torch.tensor([3])
    rest = 1 - float(softmax(t.numpy() / 2)[0, 3])
    given = sources(z, {"t": t}, y)
    found = Dkd(teacher="t", temperature=2, alpha=1, beta=rest).build(None)(given)
    assert float(found) == pytest.approx(float(Kl(teacher="t", temperature=2).build(None)(given)), rel=1e-12)


def test_decoupled_distillation_is_finite_where_a_teacher_is_sure():
    z, t, y = torch.zeros(2, 4), torch.tensor([[200.0, 0, 0, 0], [0, 200.0, 0, 0]]), torch.tensor([0, 3])
    given = sources(z.requires_grad_(), {"t": t}, y)
    found = Dkd(teacher="t", temperature=1).build(None)(given)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, r"dkd takes integer labels .*\(4,\); none arrived"),
        (torch.zeros(4), r"torch.float32 of \(4,\) arrived"),
        (torch.tensor([0, 1, 10, -100]), "between 0 and 10, but the outputs have 10 classes"),
        (torch.tensor([0, 1, -1, -100]), "between -1 and 1, but the outputs have 10 classes"),
    ],
)
def test_labels_that_do_not_fit_decoupled_distillation_are_refused(targets, message):
    with pytest.raises(SpecError, match=message):
        Dkd(teacher="t").build(None)(sources(logits(4, 10), {"t": logits(4, 10)}, targets))


def test_relations_do_not_see_scale_and_shift():
    # Rows of probabilities that are a line of the teacher's: at a high temperature, logits that are.
    t = logits(6, 5, seed=1)
    given = sources(2 * t + 1, {"t": t})
    found = Dist(teacher="t", temperature=1e5).build(None)(given) / 1e10
    assert float(found) == pytest.approx(0, abs=1e-8)
    assert float(Dist(teacher="t", temperature=1e5).build(None)(sources(-t, {"t": t})) / 1e10) == pytest.approx(8)


@pytest.mark.parametrize("ahead", [0, 10, 30, 60, 85])
def test_relations_of_sure_answers_are_those_of_numpy_in_float32_too(ahead):
    z, t = (logits(6, 5, seed=seed) / 3 for seed in (0, 1))
    for each, labels in ((z, [0, 1, 2, 0, 1, 2]), (t, [0, 1, 2, 0, 2, 1])):  # the last two classes are nobody's
        each += ahead * nn.functional.one_hot(torch.tensor(labels), 5)
    p, q = softmax(t.numpy()), softmax(z.numpy())
    r = [np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*both, strict=True)]) for both in ((p, q), (p.T, q.T))]
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        found = Dist(teacher="t", temperature=1).build(None)(sources(z.to(dtype), {"t": t.to(dtype)}))
        assert float(found) == pytest.approx(2 * (1 - r[0]) + 2 * (1 - r[1]), abs=near)


def test_without_variance_there_is_no_relation():
    t = logits(4, 5, seed=1).float()
    z = logits(4, 5).float()
    z[0] = 0.1
    t[:, 4] = z[:, 4] = -torch.inf
    z.requires_grad_()
    found = {}
    for beta, gamma in ((1, 0), (0, 1)):
        loss = Dist(teacher="t", temperature=1, beta=beta, gamma=gamma).build(None)(sources(z, {"t": t}))
        (gradient,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(gradient).all()
        assert (gradient[:, 4] == 0).all()
        found[beta] = float(loss.detach())
    p, q = softmax(t.double().numpy()), softmax(z.detach().double().numpy())
    # Row 0 has some: the last class has no probability. Of the columns the last has none.
    assert found[1] == pytest.approx(
        np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]), abs=1e-5
    )
    columns = [1 - np.corrcoef(p[:, k], q[:, k])[0, 1] for k in range(4)]
    assert found[0] == pytest.approx(np.mean([*columns, 1]), abs=1e-5)
    # No row and no column has any.
    flat = torch.full((3, 4), 0.1, requires_grad=True)
    loss = Dist(teacher="t", temperature=1).build(None)(sources(flat, {"t": flat.detach().clone()}))
    loss.backward()
    assert float(loss.detach()) == 4
    assert (flat.grad == 0).all()


def layered(student, teacher):
    outputs = student.flatten(1)
    batch = Batch((outputs,), None)
    return LossInputs(outputs, (outputs,), batch, {"t": outputs}, 0.0, {"a": student}, {"t": {"b": teacher}})


LAYERED = {"teacher": "t", "layers": {"a": "b"}}


@pytest.mark.parametrize("kind", [Hint, Attention])
def test_maps_of_different_sizes_are_averaged_down_to_the_smaller(kind):
    student, teacher = logits(2, 3, 8, 4), logits(2, 5, 4, 8, seed=1)
    small = [nn.functional.adaptive_avg_pool2d(each, (4, 4)) for each in (student, teacher)]
    loss = kind(**LAYERED).build(None)
    loss.prepare(layered(student, teacher))
    torch.testing.assert_close(loss.double()(layered(student, teacher)), loss(layered(*small)))
    torch.testing.assert_close(small[0], student.view(2, 3, 4, 2, 4).mean(3))


def test_a_projector_is_a_convolution_of_one_pixel_for_maps_and_a_linear_map_else():
    student, teacher = logits(2, 3, 4, 5), logits(2, 6, 4, 5, seed=1)
    loss = Hint(**LAYERED).build(None)
    loss.prepare(layered(student, teacher))
    (projector,) = loss.double().projectors
    guided = nn.functional.conv2d(student, projector.weight[:, :, None, None], projector.bias)
    expected = (guided - teacher).square().mean() / 2
    torch.testing.assert_close(loss(layered(student, teacher)), expected)
    flat = [each.permute(0, 2, 3, 1).flatten(1, 2) for each in (student, teacher)]
    torch.testing.assert_close(loss(layered(*flat)), expected)


@pytest.mark.parametrize("shapes", [((2, 3, 4, 4), (2, 3)), ((2, 5, 3), (2, 6, 3)), ((2, 3, 4, 4, 4), (2, 3, 4, 4, 4))])
def test_layers_that_cannot_be_compared_are_refused(shapes):
    given = layered(*(logits(*shape) for shape in shapes))
    for look in (Hint(**LAYERED).build(None).prepare, Attention(**LAYERED).build(None)):
        with pytest.raises(SpecError, match=r"layer 'a' of shape .* and 'b' of teacher 't', .* cannot be compared"):
            look(given)


def test_attention_is_over_positions():
    with pytest.raises(SpecError, match="attention is over positions"):
        Attention(**LAYERED).build(None)(layered(logits(2, 3), logits(2, 3)))


def test_pairs_of_layers_are_summed():
    for kind in (Hint, Attention):
        with pytest.raises(ValueError, match="at least 1 item"):
            kind(teacher="t", layers={})
    one, two, other = logits(2, 3, 4, 4), logits(2, 5, 2, 2), logits(2, 4, 4, 4, seed=2)
    outputs = one.flatten(1)
    given = LossInputs(outputs, (), Batch((one,), None), {}, 0.0, {"a": one, "c": two}, {"t": {"b": other}})
    both = Attention(teacher="t", layers={"a": "b", "c": "b"})
    assert both.teacher_features() == {"t": ("b",)}
    parts = [Attention(teacher="t", layers={name: "b"}).build(None)(given) for name in "ac"]
    torch.testing.assert_close(both.build(None)(given), sum(parts))
