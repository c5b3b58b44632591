import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.contracts import test_constraints as contract
from tests.methods.toys import context, data, fresh, same

from attar._src.core.errors import ModelError, SpecError
from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import Codebook, Quantized
from attar._src.methods.finetune import Finetune
from attar._src.methods.prune.prune import Prune
from attar._src.methods.quantize.lsq import function
from attar._src.methods.quantize.lsq.activation import LsqActivation
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.lsq.weight import LsqWeight
from attar._src.work.compressed_model import Round
from attar._src.work.constraint import Progress

GRANULARITIES = [PerTensor(), PerChannel(), PerChannel(axis=1), PerGroup(size=5), PerBucket(size=7)]
#: Beside those of the contract suite, whose own tests are about symmetric grids.
MORE = [
    {"bits": 3, "offset": True},
    {"bits": 2, "offset": True, "granularity": "group:20", "narrow_range": False},
    {"bits": 2, "through": [5, 3], "until": 0.6, "offset": True},
    {"bits": 4, "offset": True, "activations": 6},
]


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step_of(weight, bits=3, granularity=None, *, narrow=True, **more):
    return LsqWeight(weight, Scheme(bits=bits, granularity=granularity or PerChannel(), narrow_range=narrow), **more)


@pytest.fixture(params=MORE, ids=str)
def more(request):
    return Lsq(**request.param)


@pytest.mark.parametrize(
    "owed",
    [
        contract.test_what_is_stored_is_what_was_read,
        contract.test_the_file_computes_what_was_trained,
        contract.test_it_acts,
        contract.test_evaluation_changes_nothing,
        contract.test_its_state_is_all_it_goes_on_from,
        contract.test_settling_twice_is_settling_once,
        contract.test_ranks_agree_after_sync,
        contract.test_the_description_is_json_both_ways,
    ],
    ids=lambda owed: owed.__name__.removeprefix("test_"),
)
def test_every_kind_owes_what_constraints_owe(more, owed):
    owed(more)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", [(6, 4), (4, 3, 3, 2), (1, 9), (5, 1)])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_what_is_stored_is_what_is_read(granularity, shape, bits, shifted):
    weight = numbers(*shape, seed=bits) + 0.3
    held = step_of(weight, bits, granularity, shifted=shifted)
    stored = held.to_compressed(weight)
    assert isinstance(stored, Codebook if shifted else Quantized)
    assert np.array_equal(stored.dense(), held(weight).detach().numpy())
    # What is read is on the grid, and stays there to the last bit.
    assert torch.equal(held(held(weight)), held(weight))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_are_those_of_the_papers(sign, granularity, narrow, shifted):
    # Element by element in double precision, from the definitions; 6 x 8 elements, so the last bucket is a short one.
    weight = numbers(6, 8, seed=1).add(0.2).requires_grad_()
    held = step_of(weight, 3, granularity, narrow=narrow, shifted=shifted)
    with torch.no_grad():
        held.step *= 0.7 * sign
    upstream = numbers(6, 8, seed=2)
    (held(weight) * upstream).sum().backward()
    low, high = (-3 if narrow else -4), 3
    index = np.broadcast_to(granularity.index((6, 8)), (6, 8))
    steps, shifts = np.zeros(len(held.step)), np.zeros(len(held.step))
    passed = np.zeros((6, 8))
    for place in np.ndindex(6, 8):
        group, g = index[place], float(upstream[place])
        s, b = abs(held.step[group].item()), held.offset[group].item() if shifted else 0.0
        v = (weight[place].item() - b) / s
        inside = low <= v <= high
        passed[place] = g * inside
        steps[group] += g * (round(v) - v if inside else low if v < low else high)
        shifts[group] += g * (not inside)
    factor = 1 / math.sqrt(48 / len(held.step) * high)
    assert 0 < (passed == 0).sum() < 48
    np.testing.assert_allclose(weight.grad.numpy(), passed, rtol=1e-6)
    np.testing.assert_allclose(held.step.grad.numpy(), sign * steps * factor, rtol=2e-5, atol=2e-6)
    if shifted:
        np.testing.assert_allclose(held.offset.grad.numpy(), shifts * factor, rtol=2e-5, atol=2e-6)


def test_the_gradient_of_a_step_of_many_elements_keeps_its_digits():
    weight = numbers(1, 1 << 16).requires_grad_()
    held = step_of(weight, 8)
    with torch.no_grad():
        held.step *= 0.5
    upstream = numbers(1, 1 << 16, seed=1)
    held(weight).backward(upstream)
    v = weight.detach().double() / held.step.detach().double()
    slope = torch.where(v.abs() <= 127, v.round() - v, 127 * v.sign())
    wanted = (slope * upstream).sum() / math.sqrt((1 << 16) * 127)
    torch.testing.assert_close(held.step.grad.double(), wanted[None], rtol=1e-4, atol=0)


def test_in_bfloat16_gradients_come_in_float32_and_the_same():
    weight, x = numbers(8, 64).requires_grad_(), numbers(32, 64, seed=1)
    held = step_of(weight)
    found = []
    for enabled in (False, True):
        weight.grad = held.step.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            read = held(weight)
            assert read.dtype is torch.float32
            loss = torch.nn.functional.linear(x, read).float().square().mean()
        loss.backward()
        assert weight.grad.dtype is held.step.grad.dtype is torch.float32
        found.append((weight.grad.clone(), held.step.grad.clone()))
    for one, other in zip(*found, strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.02 * float(one.abs().max()))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_steps_begin_as_in_the_papers(bits):
    weight, top = numbers(3, 50), 2 ** (bits - 1) - 1
    held, shifted = step_of(weight, bits), step_of(weight, bits, shifted=True)
    torch.testing.assert_close(held.step.detach(), 2 * weight.abs().mean(1) / math.sqrt(top))
    torch.testing.assert_close(shifted.offset.detach(), weight.mean(1))
    torch.testing.assert_close(shifted.step.detach(), 3 * weight.std(1, correction=0) / 2 ** (bits - 1))


def test_pruned_zeros_make_a_step_no_smaller_where_that_leaves_a_larger_error():
    weight = numbers(3, 1000)
    weight[1, weight[1].abs().argsort()[:900]] = 0
    for bits, of in [(4, weight[1, weight[1] != 0]), (2, weight[1])]:
        held, top = step_of(weight, bits), 2 ** (bits - 1) - 1
        torch.testing.assert_close(held.step[1].detach(), 2 * of.abs().mean() / math.sqrt(top))
        # Those without zeros to the bit as if there were none beside them.
        assert torch.equal(held.step[[0, 2]], step_of(weight[[0, 2]], bits).step)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_step_beside_zeros_is_the_better_of_two(granularity, bits):
    weight = numbers(6, 80, seed=bits)
    weight[torch.rand(6, 80, generator=torch.Generator().manual_seed(bits)) < 0.85] = 0
    held, top = step_of(weight, bits, granularity), 2 ** (bits - 1) - 1
    index = np.broadcast_to(granularity.index((6, 80)), (6, 80))
    for group, found in enumerate(held.step.tolist()):
        w = weight.double().numpy()[index == group]
        if not w.any():
            continue
        steps = [2 * np.abs(of).mean() / math.sqrt(top) for of in (w, w[w != 0])]
        taken = int(np.argmin(np.abs(np.array(steps) - found)))
        assert found == pytest.approx(steps[taken], rel=1e-5)
        errors = [np.square(w - s * np.clip(np.rint(w / s), -top, top)).mean() for s in steps]
        assert errors[taken] <= min(errors) * 1.001


@pytest.mark.parametrize("shifted", [False, True])
def test_a_channel_of_zeros_begins_as_the_others_and_grows(shifted):
    weight = numbers(4, 50)
    weight[1] = 0
    held = step_of(weight, shifted=shifted)
    torch.testing.assert_close(held.step[1], held.step[[0, 2, 3]].mean())
    assert (held(weight)[1] == 0).all()
    moved = weight.clone().requires_grad_()
    held(moved)[1].sum().backward()
    assert (moved.grad[1] == 1).all()


def test_a_tensor_of_zeros_can_still_learn():
    weight = torch.zeros(2, 30, requires_grad=True)
    held = step_of(weight)
    assert held.step.tolist() == pytest.approx([1 / math.sqrt(30 * held.scheme.qmax)] * 2)
    assert np.array_equal(held.to_compressed(weight).dense(), np.zeros((2, 30)))
    goal = numbers(2, 30)
    optimizer = torch.optim.SGD([weight, held.step], lr=0.1)
    for _ in range(400):
        loss = (held(weight) - goal).square().mean() * 30
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(held.step).all()
    assert (held(weight) - goal).square().mean() < 0.15 * goal.square().mean()


def test_nothing_not_finite_is_stored():
    for shifted in (False, True):
        held = step_of(numbers(2, 3), shifted=shifted)
        with pytest.raises(SpecError, match="not finite"):
            held.to_compressed(torch.full((2, 3), torch.nan))


def test_a_bad_axis_names_the_weight():
    with pytest.raises(SpecError, match=r"lsq at 'head.weight': .*axis 3"):
        Lsq(granularity=PerChannel(axis=3)).attach(fresh())


# Bits that become fewer.


def held_to(rule):
    learner = fresh()
    learner.attach(rule.attach(learner))
    return learner, learner.constraints[-1]


def widths(constraint):
    return {name: held.scheme.bits for name, held in constraint.weights.items()}


def test_bits_become_fewer_in_equal_parts_of_the_time():
    learner, steps = held_to(Lsq(bits=2, through=[8, 4, 3], until=0.6, overrides={"head": 5}))
    seen = []
    assert widths(steps)["first.weight"] == 8
    for step in range(10):
        learner.update(Progress(step, 10))
        seen.append(widths(steps))
    assert [each["first.weight"] for each in seen] == [8, 8, 4, 4, 3, 3, 2, 2, 2, 2]
    assert [each["head.weight"] for each in seen] == [8, 8, 5, 5, 5, 5, 5, 5, 5, 5]
    learner.update(Progress(0, 10))
    assert widths(steps)["first.weight"] == 2


def test_at_a_change_steps_begin_anew_from_what_is_there():
    learner, steps = held_to(Lsq(bits=2, through=[4], until=0.5))
    learner.attach(Prune(sparsity=0.5, shape="once", layers=("first",)).attach(learner))
    learner.update(Progress(0, 4))
    name, held = "first.weight", steps.weights["first.weight"]
    with torch.no_grad():
        learner.tensor(name).mul_(3)
        held.step.fill_(7.0)
    learner.update(Progress(1, 4))
    assert (held.step == 7).all()
    learner.update(Progress(2, 4))
    value = learner.weight_view().effective(name)
    assert (value == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(held.step, step_of(value, 2).step)
    assert held.to_compressed(value).scheme.bits == 2
    # The optimizer knows the same parameter.
    assert any(each is held.step for each in learner.graph(train=True).parameters())


def test_a_stage_too_short_ends_with_the_bits_that_were_asked():
    learner, steps = held_to(Lsq(bits=2, through=[8], until=0.9))
    learner.update(Progress(0, 1))
    assert widths(steps)["first.weight"] == 8
    learner.finalize()
    assert set(widths(steps).values()) == {2}
    assert {tensor.scheme.bits for tensor in learner.compressed_weights().values()} == {2}


@pytest.mark.parametrize("through", [[3], [4], [8, 8], [3, 8]])
def test_bits_that_do_not_become_fewer_are_refused(through):
    with pytest.raises(ValidationError, match="must be descending and above bits 4"):
        Lsq(bits=4, through=through)


def test_without_other_bits_the_state_is_the_steps_alone():
    assert {name.rpartition(".")[2] for name in held_to(Lsq())[1].state_dict()} == {"step"}


class Stop(BaseException):
    """The plug is pulled."""


def test_pulled_out_between_two_widths_it_ends_in_the_same_bytes(tmp_path):
    # Three epochs; the change from 4 bits to 3 is in the second.
    rule = {"name": "lsq", "bits": 2, "through": [4, 3], "until": 0.7, "activations": 4}
    stage = Finetune(epochs=3, batch=32, constraints=[rule], optimizer={"name": "sgd", "lr": 0.02})

    def pull(row):
        raise Stop

    def state(learner):
        return {**learner.module.state_dict(), **learner.constraints[0].state_dict()}

    whole, again = fresh(), fresh(1)
    stage.run(whole, context(tmp_path / "whole", count=64))
    with pytest.raises(Stop):
        stage.run(again, context(tmp_path / "again", count=64, log=pull))
    again = fresh(1)
    stage.run(again, context(tmp_path / "again", count=64))
    assert same(state(whole), state(again))
    assert set(widths(again.constraints[0]).values()) == {2}


# Activations.


def site_of(x, bits=4):
    held = LsqActivation(bits).train()
    held(x)
    return held


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("low", [-1.0, 0.0, 0.5, -3.0])
def test_a_site_rounds_as_the_file_does_and_holds_zero(bits, low):
    x = torch.linspace(low, low + 3, 999)
    held = site_of(x, bits).eval()
    with torch.no_grad():
        held.step *= 0.83
        held.offset -= 0.1
    held.clamp_offset()
    x = torch.linspace(-6, 6, 999)
    assert torch.equal(held(x), Round(held.grid("x"))(x))
    assert held(torch.zeros(3)).tolist() == [0, 0, 0]
    assert bool(held.below) == (low < 0)
    assert held.grid("x").zero_point == 0 or low < 0


def test_a_site_begins_where_the_error_over_the_first_batch_is_least():
    x = torch.cat([numbers(20000), torch.tensor([-20.0, 30.0])])
    held = site_of(x)
    assert held.step < 50 / 15 / 2

    def error(scale, zero):
        return float((scale * ((x / scale).round().add(zero).clamp(0, 15) - zero) - x).square().sum())

    mine = error(held.step.item(), held.zero_point())
    assert mine < 0.5 * error(50 / 15, 6)
    before = held.step.clone()
    held(x * 9)
    assert torch.equal(held.step, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("orders", [("last", "first"), ("last", "last"), ("first", "last"), ("turned", "first")])
def test_gradients_of_a_site_are_those_of_the_papers(signed, dtype, orders):
    """Guards against sums over pairs that are not the same element, whatever the memory order of the two is."""
    ordered = {
        "first": torch.Tensor.contiguous,
        "last": lambda each: each.contiguous(memory_format=torch.channels_last),
        "turned": lambda each: each.transpose(1, 2).contiguous().transpose(1, 2),
    }
    # Longer than a chunk.
    x = ordered[orders[0]](numbers(5, 7, 96, 90, seed=3).to(dtype))
    x = (x if signed else x.relu()).requires_grad_()
    held = site_of(x)
    with torch.no_grad():
        held.step *= 0.6
    upstream = ordered[orders[1]](numbers(5, 7, 96, 90, seed=4).to(dtype))
    held.clamp_offset()
    held(x).backward(upstream)
    s, z = held.step.item(), held.zero_point()
    v, g = x.detach().double() / s, upstream.double()
    inside = (v >= -z) & (v <= 15 - z)
    above = v > 15 - z
    factor = 1 / math.sqrt(7 * 96 * 90 * 15)
    steps = (g * torch.where(inside, v.round() - v, above * 15.0)).sum() * factor
    torch.testing.assert_close(x.grad, torch.where(inside, upstream, 0.0), rtol=0, atol=0)
    torch.testing.assert_close(held.step.grad.double(), steps, rtol=2e-3, atol=1e-4)
    shifts = (g * ~inside).sum() * factor * signed
    assert (float(shifts) != 0) == signed
    torch.testing.assert_close(held.offset.grad.double(), shifts, rtol=2e-3, atol=1e-4)


def test_a_step_against_the_gradient_brings_a_site_nearer():
    x = numbers(400, 10)
    held = site_of(x, 2)
    with torch.no_grad():
        held.step *= 3
        held.offset += 1
    first = (held(x) - x).square().mean().detach()
    optimizer = torch.optim.SGD(held.parameters(), lr=0.3)
    for _ in range(200):
        held.clamp_offset()
        loss = (held(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.6 * first


def test_an_offset_comes_back_to_where_zero_is_on_the_grid():
    held = site_of(numbers(100))
    for far, near in ((1.0, 0.0), (-99.0, -15 * held.step.item())):
        with torch.no_grad():
            held.offset.fill_(far)
        held.clamp_offset()
        assert held.offset.item() == pytest.approx(near)


def test_in_evaluation_nothing_begins():
    held, x = LsqActivation(4).eval(), numbers(30)
    assert torch.equal(held(x), x)
    assert held.grid("x") is None
    held.clamp_offset()
    assert held.offset == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_first_batch_that_is_not_finite_is_refused(bad):
    with pytest.raises(ModelError, match="not finite in the first batch"):
        site_of(torch.tensor([bad, bad]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_elements_of_the_first_batch_that_are_not_finite_are_left_out(bad):
    x = numbers(30)
    held, clean = site_of(torch.cat([x, torch.tensor([bad])])), site_of(x)
    assert (held.step, held.offset) == (clean.step, clean.offset)
    assert len(held.warnings("x")) == 1
    assert clean.warnings("x") == ()


def test_values_that_are_all_zero_are_rounded_to_zero():
    assert site_of(torch.zeros(4, 3))(torch.zeros(4, 3)).tolist() == [[0] * 3] * 4


def test_layers_that_are_kept_have_no_grids_around_them():
    _, steps = held_to(Lsq(activations=8, keep=("head",)))
    assert "mean" not in steps.values
    assert "mean" in held_to(Lsq(activations=8))[1].values


def test_biases_end_on_the_grid_that_kernels_add_on():
    learner = contract.trained(Lsq(activations=8))
    piece = learner.deployed()
    bias, weight = piece.tensors["head.bias"].dense(), piece.tensors["head.weight"]
    steps = bias / (np.float32(piece.main.activations["mean"].scale) * weight.scale)
    assert np.allclose(steps, np.rint(steps), atol=1e-3)


def test_an_input_below_zero_is_shifted():
    learner = contract.trained(Lsq(activations=8))
    found = learner.deployed().main.activations
    assert found["x"].zero_point > 0
    assert found["relu"].zero_point == 0
    assert data(4)[0].min() < 0


def test_a_weight_beside_learned_offsets_is_fake_quantized_alike():
    weight = numbers(4, 9)
    step, index = torch.full((4,), 0.3), torch.arange(4)[:, None]
    zero = function.lsq_weight(weight, step, torch.zeros(4), index, -3, 3, 1.0)
    assert torch.equal(zero, function.lsq_weight(weight, step, None, index, -3, 3, 1.0))
