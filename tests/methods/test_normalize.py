import numpy as np
import pytest
import torch
from tests.methods.toys import context, fresh

from attar._src.core.errors import SpecError
from attar._src.methods.finetune import Finetune
from attar._src.methods.prune.prune import Prune
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.qat.freeze import Freeze
from attar._src.methods.quantize.qat.normalize import Normalize, NormalizeConstraint, NormalizedWeight

NAME = "second.weight"


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def held_to(*rules):
    learner = fresh()
    for rule in rules:
        learner.attach(rule.attach(learner))
    return learner


def test_it_removes_the_mean_and_keeps_the_spread():
    weight = numbers(6, 5) * 0.3 + 0.7
    held = NormalizedWeight(weight, "w")
    torch.testing.assert_close(held(weight), weight - weight.mean(), rtol=1e-5, atol=1e-6)
    # Whatever the weight becomes, its spread is read as it was.
    later = held(weight * 9 - 4)
    torch.testing.assert_close(later.std(correction=0), weight.std(correction=0))
    torch.testing.assert_close(later, held(weight), rtol=1e-4, atol=1e-6)


def test_its_gradient_is_that_of_the_formula():
    weight = (numbers(4, 5).double() + 0.3).requires_grad_()
    held = NormalizedWeight(weight, "w").double()
    assert torch.autograd.gradcheck(held, weight)
    held(weight).backward(numbers(4, 5, seed=1).double())
    # Neither the mean nor the size of a weight is read, so no gradient moves them.
    assert abs(float(weight.grad.sum())) < 1e-10
    assert abs(float((weight.grad * weight.detach()).sum())) < 1e-10


def test_zeros_stay_and_do_not_count_and_may_grow():
    weight = numbers(6, 50) + 0.5
    kept = weight[:3].clone()
    weight[3:] = 0
    held, weight = NormalizedWeight(weight, "w"), weight.requires_grad_()
    read = held(weight)
    assert (read[3:] == 0).all()
    torch.testing.assert_close(read[:3].detach(), kept - kept.mean(), rtol=1e-4, atol=1e-6)
    read[3:].sum().backward()
    assert (weight.grad[3:] != 0).all()


def test_steps_begin_from_what_they_round():
    learner = fresh()
    with torch.no_grad():
        learner.tensor(NAME).add_(0.5)
    for rule in (Normalize(), Lsq(bits=3)):
        learner.attach(rule.attach(learner))
    normalized, grid = learner.parametrizations(NAME)
    mean = normalized(learner.tensor(NAME)).detach().abs().mean((1, 2, 3))
    torch.testing.assert_close(grid.step.detach(), 2 * mean / 3**0.5)


def test_a_pruned_weight_stays_pruned_and_what_is_stored_is_what_is_read(tmp_path):
    learner = fresh()
    rules = (Prune(sparsity=0.5, end=0.5), Normalize(), Lsq(bits=3))
    Finetune(epochs=2, batch=32, constraints=rules, optimizer={"name": "sgd", "lr": 0.05}).run(
        learner, context(tmp_path, count=64)
    )
    for name, stored in learner.compressed_weights().items():
        mask, normalized, grid = learner.parametrizations(name)
        weight = learner.tensor(name).detach()
        # Settled, the weight itself has the zeros, and that changes nothing.
        read = grid(normalized(weight)).detach()
        assert np.array_equal(stored.dense(), read.numpy())
        assert (read[~mask.mask] == 0).all()
        assert 0.45 < (~mask.mask).float().mean() < 0.55


def test_alone_it_is_stored_as_it_is_read():
    learner = held_to(Normalize(keep=("head",)))
    stored = learner.compressed_weights()
    assert set(stored) == {"first.weight", NAME}
    assert stored[NAME].dtype == "f32"
    assert abs(float(stored[NAME].dense().mean())) < 1e-6
    assert set(learner.constraints[0].weights) == set(learner.weights) - {"head.weight"}


def test_listed_again_it_goes_on_with_the_same_spread():
    learner = held_to(Normalize())
    before = learner.compressed_weights()[NAME].dense()
    with torch.no_grad():
        learner.tensor(NAME).mul_(5)
    learner.attach(Normalize().attach(learner))
    assert len(learner.parametrizations(NAME)) == 1
    np.testing.assert_allclose(learner.compressed_weights()[NAME].dense(), before, rtol=1e-4, atol=1e-6)


def test_orders_that_cannot_work_are_refused():
    learner = held_to(Normalize(), Prune(sparsity=0.5))
    (normalizing,) = (each for each in learner.constraints if isinstance(each, NormalizeConstraint))
    with pytest.raises(SpecError, match=r"normalize at '.*': prune acts after it; list prune before normalize"):
        normalizing.check(learner.weight_view())
    with pytest.raises(SpecError, match=r"freeze already acts on it; list normalize before freeze"):
        held_to(Lsq(), Freeze(), Normalize())


def test_a_weight_without_a_spread_is_refused():
    learner = fresh()
    for value in (0.0, 0.25):
        with torch.no_grad():
            learner.tensor(NAME).fill_(value)
        with pytest.raises(SpecError, match=r"normalize at 'second.weight': all its values are equal; name it in keep"):
            Normalize().attach(learner)
    assert set(Normalize(keep=("second",)).attach(learner).weights) == {"first.weight", "head.weight"}
