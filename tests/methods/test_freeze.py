import numpy as np
import pytest
import torch
from tests.methods.toys import context, fresh, same

from attar._src.core.errors import SpecError
from attar._src.methods.finetune import Finetune
from attar._src.methods.prune.prune import Prune
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.polino.codebook import LearnedCodebook
from attar._src.methods.quantize.polino.uniform import Uniform
from attar._src.methods.quantize.qat.freeze import Freeze
from attar._src.methods.quantize.qat.normalize import Normalize
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.work.constraint import Progress

NAME = "second.weight"


def held_to(*rules):
    learner = fresh()
    for rule in rules:
        learner.attach(rule.attach(learner))
    return learner, learner.parametrizations(NAME)


def at_codes(learner, grid, codes):
    """Put the weight into the middle of codes."""
    with torch.no_grad():
        learner.tensor(NAME).copy_(grid.scale()[grid.index] * codes)


def test_frequencies_means_and_codes_are_those_of_the_paper():
    m, threshold, steps = 0.3, 0.4, 40
    learner, (frozen, grid) = held_to(Lsq(bits=3), Freeze(momentum=m, threshold=threshold))
    size = learner.tensor(NAME).shape
    rng = np.random.default_rng(0)
    # Some stay, some walk one way, some swing.
    kind = rng.integers(0, 4, size)
    path = np.clip(rng.integers(-3, 4, (steps, *size)), -3, 3)
    walk = np.minimum(np.arange(steps) // 8, 3).reshape(-1, 1, 1, 1, 1)
    path = np.where(kind == 0, path[0], np.where(kind == 1, walk, path))
    last, direction = path[0].astype(int), np.zeros(size)
    f, e, done, code = np.zeros(size), path[0].astype(float), np.zeros(size, bool), path[0].astype(float)
    for step in range(steps):
        at_codes(learner, grid, torch.from_numpy(path[step]).float())
        learner.update(Progress(step, steps))
        if step:
            q = np.where(done, code, path[step])
            change = np.sign(q - last)
            swung = (change != 0) & (change == -direction)
            f, e = m * swung + (1 - m) * f, m * q + (1 - m) * e
            direction = np.where(change != 0, change, direction)
            new = (f > threshold) & ~done
            code = np.where(done, code, np.where(new, np.round(e), path[step]))
            done, last = done | new, code
        np.testing.assert_allclose(frozen.frequency.numpy(), f, atol=1e-5)
        np.testing.assert_allclose(frozen.mean.numpy(), e, atol=1e-4)
        assert np.array_equal(frozen.frozen.numpy(), done)
        assert np.array_equal(frozen.codes.numpy(), code)
    assert 0.1 < done.mean() < 0.9
    assert not done[kind <= 1].any()
    assert learner.constraints[0].report()["frozen"] == pytest.approx(
        done.sum() / sum(learner.tensor(n).numel() for n in learner.weights)
    )


def frozen_at(learner, held, codes):
    """Freeze every third element of the weight at its code."""
    held[-2].frozen[..., ::3] = True
    held[-2].codes.copy_(codes)


def test_what_is_frozen_is_read_at_its_code_and_gets_no_gradient():
    learner, held = held_to(Lsq(bits=3), Freeze())
    learner.update(Progress(0, 4))
    frozen, grid = held
    frozen_at(learner, held, torch.full_like(frozen.codes, 2))
    weight = learner.tensor(NAME)
    read = grid(frozen(weight))
    read.sum().backward()
    wanted = (grid.scale()[grid.index] * 2).expand_as(read)
    assert torch.equal(read[..., ::3], wanted[..., ::3])
    assert (weight.grad[..., ::3] == 0).all()
    assert weight.grad[..., 1::3].any()
    assert np.array_equal(learner.compressed_weights()[NAME].dense(), read.detach().numpy())


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("end", [-3, 3])
def test_frozen_at_an_end_of_the_grid_it_is_inside_and_gives_the_step_no_gradient(end, offset):
    learner, held = held_to(Lsq(bits=3, offset=offset), Freeze())
    frozen, grid = held
    learner.update(Progress(0, 4))
    frozen.frozen.fill_(True)
    frozen.codes.fill_(end)
    weight = learner.tensor(NAME)
    for seed in range(20):
        # Wherever the optimizer has moved them, and whatever the step has become.
        noise = torch.randn((2, *weight.shape), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            weight.copy_(noise[0])
            grid.step.mul_(1 + 0.1 * noise[1].mean())
        learner.module.zero_grad()
        grid.zero_grad()
        read = grid(frozen(weight))
        wanted = grid.scale() * end + (grid.offset if offset else 0)
        assert torch.equal(read, wanted[grid.index].expand_as(read))
        read.sum().backward()
        # One element outside would be 3 paces, or a whole one of the offset.
        assert grid.step.grad.abs().max() < 1e-3 * grid.gradient_scale
        assert not offset or not grid.offset.grad.any()


def test_it_says_that_it_stands_behind_a_grid():
    assert Freeze.after_grid
    assert not Lsq.after_grid
    assert not Prune.after_grid


def test_the_optimizer_does_not_move_it_and_a_step_takes_it_along():
    learner, held = held_to(Lsq(bits=3), Freeze(threshold=1.0))
    frozen, grid = held
    learner.update(Progress(0, 4))
    frozen_at(learner, held, torch.full_like(frozen.codes, -1))
    # A momentum that was there before.
    with torch.no_grad():
        learner.tensor(NAME).add_(0.9)
        grid.step.mul_(1.7)
    assert (learner.weight_view().grid_positions()[NAME].codes()[..., ::3] == -1).all()
    learner.update(Progress(1, 4))
    wanted = -grid.scale()[grid.index].expand_as(frozen.mean)
    torch.testing.assert_close(learner.tensor(NAME)[..., ::3].detach(), wanted[..., ::3].detach())


def test_a_masked_zero_stays_zero_and_a_mask_acts_first():
    learner = fresh()
    for rule in (Prune(sparsity=0.5, shape="once"), Lsq(bits=3), Freeze()):
        learner.attach(rule.attach(learner))
    mask, frozen, grid = learner.parametrizations(NAME)
    learner.update(Progress(0, 4))
    before = learner.tensor(NAME).detach().clone()
    frozen.frozen.fill_(True)
    frozen.codes.fill_(3)
    learner.update(Progress(1, 4))
    assert torch.equal(learner.tensor(NAME), before)
    read = grid(frozen(mask(learner.tensor(NAME))))
    assert ((read == 0) == ~mask.mask).all()


#: What a weight on ``lsq`` with 3 bits (codes to 3) is on later; the largest code is the same but for the first two.
LATER = {
    "narrower": (),
    "another top": (StraightThrough(bits=4),),
    "quantize": (StraightThrough(bits=3),),
    "linear": (Uniform(bits=2),),
    "coarser": (Lsq(bits=3, granularity="tensor"),),
    "the same again": (Lsq(bits=3),),
    "points between": (LearnedCodebook(bits=3), Lsq(bits=3)),
}


@pytest.mark.parametrize("how", LATER)
def test_another_grid_sets_all_free(how):
    first = Lsq(bits=3, through=[5], until=0.5) if how == "narrower" else Lsq(bits=3)
    learner, held = held_to(first, Freeze())
    learner.update(Progress(0, 4))
    frozen, weight = held[0], learner.tensor(NAME)
    frozen.frozen.fill_(True)
    frozen.codes.fill_(2)
    assert not torch.autograd.grad(frozen(weight).sum(), weight)[0].any()
    for rule in LATER[how]:
        learner.attach(rule.attach(learner))
    if how != "narrower":  # free before any step, too
        assert torch.equal(frozen(weight), weight)
    learner.update(Progress(2, 4))
    assert (torch.autograd.grad(frozen(weight).sum(), weight)[0] == 1).all()
    learner.update(Progress(3, 4))
    assert not frozen.frozen.any()
    assert (frozen.codes != 2).any()
    # Codes are those of the grid it is on now, and it freezes there again.
    grid = learner.parametrizations(NAME)[-1]
    assert torch.equal(frozen.codes, grid.grid_positions(weight).codes().int())
    frozen.frozen.fill_(True)
    assert not torch.autograd.grad(frozen(weight).sum(), weight)[0].any()


def test_on_points_nothing_is_frozen():
    learner, held = held_to(Lsq(bits=3), Freeze())
    learner.update(Progress(0, 4))
    held[0].frozen.fill_(True)
    learner.attach(LearnedCodebook(bits=3).attach(learner))
    learner.update(Progress(1, 4))
    (freezing,) = (c for c in learner.constraints if "frozen" in c.report())
    assert freezing.report()["frozen"] == 0


@pytest.mark.parametrize("before", [(), (Normalize(),), (Prune(sparsity=0.3, shape="once"),)])
def test_trained_with_it_the_file_holds_what_was_read(before, tmp_path):
    learner = fresh()
    rules = (*before, Lsq(bits=2), Freeze(threshold=0.002, momentum=0.02))
    Finetune(epochs=4, batch=32, constraints=rules, optimizer={"name": "sgd", "lr": 0.1}).run(
        learner, context(tmp_path, count=64)
    )
    (freezing,) = (c for c in learner.constraints if "frozen" in c.report())
    assert 0.005 < freezing.report()["frozen"] < 0.9
    for name, stored in learner.compressed_weights().items():
        value = learner.tensor(name).detach()
        for held in learner.parametrizations(name):
            value = held(value).detach()
        assert np.array_equal(stored.dense(), value.numpy())
        frozen = freezing.weights[name]
        live = frozen.frozen & (value != 0) if before and isinstance(before[0], Prune) else frozen.frozen
        assert np.array_equal(stored.codes[live.numpy()], frozen.codes[live].numpy())


class Stop(BaseException):
    """The plug is pulled."""


#: Of one stage, and of two: the later grid has as many codes.
STAGES = {
    "narrower": [(Lsq(bits=2, through=[4], until=0.3), Freeze(threshold=0.002, momentum=0.02))],
    "another grid": [(Lsq(bits=2), Freeze(threshold=0.002, momentum=0.02)), (StraightThrough(bits=2),)],
}


@pytest.mark.parametrize("how", STAGES)
def test_pulled_out_in_the_middle_it_ends_in_the_same_bytes(how, tmp_path):
    stages = [
        Finetune(epochs=4, batch=32, constraints=rules, optimizer={"name": "sgd", "lr": 0.1}) for rules in STAGES[how]
    ]
    seen = []

    def pull(row):
        seen.append(row["frozen"])
        if len(seen) == 4 * len(stages) - 2:
            raise Stop

    def run(learner, folder, log=None):
        for index, stage in enumerate(stages):
            stage.run(learner, context(tmp_path / folder / str(index), count=64, log=log))

    def state(learner):
        held = {f"{i}.{k}": v for i, c in enumerate(learner.constraints) for k, v in c.state_dict().items()}
        return {**learner.module.state_dict(), **held}

    whole = fresh()
    run(whole, "whole")
    with pytest.raises(Stop):
        run(fresh(1), "again", pull)
    again = fresh(1)
    run(again, "again")
    assert same(state(whole), state(again))
    assert whole.constraints[0].report()["frozen"] > 0
    # Pulled where the grid of now had frozen some, so that this was to be taken up again.
    assert seen[-1] > 0


def test_it_acts_on_weights_on_a_grid_that_are_not_kept():
    learner, _ = held_to(Lsq(keep=("first",)), Freeze(keep=("head",)))
    (freezing,) = (c for c in learner.constraints if "frozen" in c.report())
    assert set(freezing.weights) == {NAME}


def test_without_a_grid_it_is_refused():
    with pytest.raises(SpecError, match="freeze: no weight is on an evenly spaced grid"):
        Freeze().attach(fresh())
