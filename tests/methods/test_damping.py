import pytest
import torch
from tests.methods.toys import fresh

from attar._src.core.errors import SpecError
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.qat.damping import Damping
from attar._src.methods.quantize.qat.normalize import Normalize
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.train.batch import Batch
from attar._src.work.objective import LossInputs


def inputs(learner):
    batch = Batch((torch.zeros(2, 2, 8, 8),), None)
    return LossInputs(torch.zeros(2, 4), (), batch, {}, 0.5, weights=learner.weight_view())


def held_to(*rules):
    learner = fresh()
    for rule in rules:
        learner.attach(rule.attach(learner))
    return learner


@pytest.mark.parametrize("offset", [False, True])
def test_it_is_the_squared_distance_within_the_range(offset):
    learner = held_to(Lsq(bits=2, offset=offset, keep=("head",)))
    wanted = torch.zeros((), dtype=torch.float64)
    for name, held in learner.constraints[0].weights.items():
        w, s = learner.tensor(name).double(), held.scale()[held.index].double()
        b = held.offset[held.index].double() if offset else 0.0
        middle = s * ((w - b) / s).round().clamp(-1, 1) + b
        wanted = wanted + (middle.detach() - torch.minimum(torch.maximum(w, b - s), b + s)).square().sum()
    loss = Damping().build(learner)(inputs(learner))
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=0)


def test_weights_alone_move_and_only_those_in_range():
    learner = held_to(Lsq(bits=2))
    for held in learner.constraints[0].weights.values():
        with torch.no_grad():
            held.step *= 0.7  # so that some are clipped
    Damping().build(learner)(inputs(learner)).backward()
    for name, held in learner.constraints[0].weights.items():
        w = learner.tensor(name)
        read = held(w).detach()
        inside = w.detach().abs() <= held.scale()[held.index].detach()
        assert not inside.all()
        torch.testing.assert_close(w.grad, torch.where(inside, 2 * (w.detach() - read), 0.0), rtol=1e-3, atol=1e-6)
        assert held.step.grad is None


def test_on_the_grid_there_is_nothing_to_damp():
    learner = held_to(StraightThrough(bits=4))
    loss = Damping().build(learner)
    assert loss(inputs(learner)) > 0
    with torch.no_grad():
        for name, held in learner.constraints[0].weights.items():
            learner.tensor(name).copy_(held(learner.tensor(name)))
    assert loss(inputs(learner)) < 1e-9


def test_descending_it_alone_ends_on_the_grid():
    learner = held_to(Normalize(), Lsq(bits=3))
    loss, codes = Damping().build(learner), None
    first = loss(inputs(learner)).detach()
    for _ in range(60):
        found = [positions.codes().clone() for positions in learner.weight_view().grid_positions().values()]
        codes = codes or found
        loss(inputs(learner)).backward()
        with torch.no_grad():
            for name in learner.weights:
                weight = learner.tensor(name)
                weight -= 0.2 * weight.grad
                weight.grad = None
    assert loss(inputs(learner)) < 0.02 * first
    # It draws to the code a weight has, not to another; the normalization moves some all the same.
    same = [(one == other).float().mean() for one, other in zip(codes, found, strict=True)]
    assert min(same) > 0.97


def test_kept_layers_are_left_alone():
    learner = held_to(Lsq(keep=("head",)))
    Damping().build(learner)(inputs(learner)).backward()
    assert learner.tensor("head.weight").grad is None


def test_it_grows_over_the_stage():
    weight = Damping().weight
    assert [weight.at(0.0), weight.at(1.0)] == [0.0, 0.01]


def test_without_codes_it_is_refused():
    with pytest.raises(SpecError, match="damping: no weight is on an evenly spaced grid"):
        Damping().build(fresh())
