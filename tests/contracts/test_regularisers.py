"""What every term owes that looks at weights alone: neither at outputs nor at labels nor at teachers."""

import gc
import math
import weakref
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter
from tests.contracts.test_objectives import REGULARISERS
from tests.methods.toys import context, data, fresh, same

from attar._src.core.errors import SpecError
from attar._src.methods.finetune import Finetune
from attar._src.methods.objectives.registry import OBJECTIVES, ObjectiveChoice
from attar._src.methods.prune.lasso import Lasso
from attar._src.methods.prune.prune import Prune
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.polino.uniform import Uniform
from attar._src.methods.quantize.qat.rate import Rate
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.train.batch import Batch
from attar._src.train.schedule import Schedule
from attar._src.work.constraint import Progress
from attar._src.work.objective import LossInputs

NAMES = [name for name in OBJECTIVES if name in REGULARISERS]
#: Terms that look at codes.
ON_GRIDS = [name for name in NAMES if name != "lasso"]
GRIDS = [Lsq(bits=2), Lsq(bits=4, offset=True), StraightThrough(bits=3, granularity="group:16")]


@pytest.fixture(params=NAMES)
def term(request):
    return OBJECTIVES[request.param]()


@pytest.fixture(params=GRIDS, ids=lambda rule: f"{rule.name}-{rule.bits}")
def learner(request):
    learner = fresh()
    learner.attach(request.param.attach(learner))
    return learner


def sources(learner, seed=0, count=4):
    outputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    x, y = data(count, seed)
    return LossInputs(outputs, (outputs,), Batch((x,), y), {}, 0.5, weights=learner.weight_view())


def test_every_one_is_registered():
    assert set(NAMES) == REGULARISERS


# Where a weight moves the range that the others are scaled by, a step need not help, which the tests below ask for.
@pytest.mark.parametrize(
    "learner", [*GRIDS, Uniform(bits=3)], ids=lambda rule: f"{rule.name}-{rule.bits}", indirect=True
)
def test_one_finite_number_with_a_gradient_for_the_weights_alone(term, learner):
    given, loss = sources(learner), term.build(learner)
    found = loss(given)
    assert found.shape == ()
    assert found.dtype is torch.float32
    assert torch.isfinite(found)
    found.backward()
    assert given.outputs.grad is None
    for name, parameter in learner.module.named_parameters():
        assert (name in learner.weights) == (parameter.grad is not None and bool(parameter.grad.any()))
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_the_batch_says_nothing(term, learner):
    loss = term.build(learner).eval()
    assert torch.equal(loss(sources(learner)), loss(sources(learner, seed=1, count=7)))


def test_evaluation_changes_nothing(term, learner):
    loss = term.build(learner)
    loss(sources(learner))
    loss.eval()
    before = {name: tensor.clone() for name, tensor in {**loss.state_dict(), **learner.module.state_dict()}.items()}
    loss(sources(learner))
    assert same(before, {**loss.state_dict(), **learner.module.state_dict()})


def test_a_step_against_the_gradient_helps(term, learner):
    loss = term.build(learner).eval()
    before = loss(sources(learner))
    before.backward()
    with torch.no_grad():
        for name in learner.weights:
            weight = learner.tensor(name)
            weight -= 1e-2 * weight.grad
    assert loss(sources(learner)) < before


@pytest.mark.parametrize("term", ON_GRIDS, indirect=True)
def test_weights_that_are_kept_do_not_count(term):
    learner = fresh()
    learner.attach(Lsq(keep=("head",)).attach(learner))
    loss = term.build(learner).eval()
    before = loss(sources(learner)).detach()
    with torch.no_grad():
        learner.tensor("head.weight").mul_(3)
    assert torch.equal(loss(sources(learner)), before)


@pytest.mark.parametrize("term", ON_GRIDS, indirect=True)
def test_without_a_grid_it_is_refused(term):
    with pytest.raises(SpecError, match=f"{term.name}: no weight is on an evenly spaced grid.*lsq"):
        term.build(fresh())


def test_it_is_trained_with_beside_another(term, tmp_path):
    rows, learner = [], fresh()
    beside = {"name": term.name, "weight": 0.01}
    stage = Finetune(epochs=2, batch=32, objective=["cross_entropy", beside], constraints=[{"name": "lsq", "bits": 2}])
    stage.run(learner, context(tmp_path, count=64, log=rows.append))
    assert all(row[term.name] > 0 for row in rows)


def test_it_does_not_keep_its_learner(term):
    learner = fresh()
    learner.attach(Lsq(bits=2).attach(learner))
    loss, gone = term.build(learner), weakref.ref(learner)
    loss(sources(learner))
    del learner
    gc.collect()
    assert gone() is None


def test_it_needs_nothing(term):
    assert term.needs == frozenset()
    assert term.teachers() == ()


def test_the_description_is_json_both_ways(term):
    adapter = TypeAdapter(ObjectiveChoice)
    assert adapter.validate_python(term.model_dump(mode="json")) == term
    assert adapter.validate_python(term.describe()) == term


def test_what_is_masked_has_no_part_in_it(term):
    learner = fresh()
    for rule in (Prune(sparsity=0.5, shape="once"), Lsq(bits=3)):
        learner.attach(rule.attach(learner))
    learner.update(Progress(0, 2))
    loss, name = term.build(learner).eval(), "second.weight"
    before, weight = loss(sources(learner)), learner.tensor(name)
    before.backward()
    gone = ~learner.parametrizations(name)[0].mask
    assert gone.any()
    assert (weight.grad[gone] == 0).all()
    with torch.no_grad():
        weight[gone] = 9.0
    assert torch.equal(loss(sources(learner)), before)


def lengths(groups):
    return sum(math.sqrt(len(group)) * math.sqrt(sum(value**2 for value in group)) for group in groups)


@pytest.mark.parametrize("unit", ["weight", "row", "4x1", "1x2"])
def test_the_lasso_is_its_formula_in_float64(unit):
    learner, name = fresh(), "second.weight"
    given = sources(learner)
    loss = Lasso(unit=unit, layers=("second",)).build(learner)
    found = loss(given)
    found.backward()
    weight = learner.tensor(name).detach().double()
    groups = {
        "weight": weight.reshape(-1, 1),
        "row": weight.reshape(8, -1),
        "4x1": weight.reshape(2, 4, 8, 9).movedim(1, -1).reshape(-1, 4),
        "1x2": weight.reshape(8, 4, 2, 9).movedim(2, -1).reshape(-1, 2),
    }[unit].tolist()
    assert float(found.detach()) == pytest.approx(lengths(groups), rel=1e-5)
    assert learner.tensor(name).grad.norm() > 0
    assert learner.tensor("first.weight").grad is None
    with torch.no_grad():
        learner.tensor(name).zero_()
    learner.module.zero_grad()
    loss(sources(learner)).backward()
    assert torch.isfinite(learner.tensor(name).grad).all()


def test_the_lasso_has_no_patterns():
    """Guards a unit that would be taken for single weights."""
    with pytest.raises(ValueError, match="unit 2:4: weights of an N:M pattern are no group of one length"):
        Lasso(unit="2:4")


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_rate_is_its_formula_in_float64(bits, offset):
    learner, name = fresh(), "second.weight"
    rule = Lsq(bits=bits, offset=offset, granularity="tensor", keep=("first", "head"))
    learner.attach(rule.attach(learner))
    held, weight = learner.parametrizations(name)[0], learner.tensor(name)
    with torch.no_grad():
        held.step *= 0.5  # so that some weights lie beyond the ends
    loss = Rate().build(learner)
    found = loss(sources(learner))
    found.backward()
    step, shift = float(held.step.detach()), float(held.offset.detach()) if offset else 0.0
    at = [(value - shift) / step for value in weight.detach().double().reshape(-1).tolist()]
    low, high = held.scheme.qmin, held.scheme.qmax
    codes = [min(max(round(value), low), high) for value in at]
    price = {
        code: math.log2(len(at) + high - low + 1) - math.log2(codes.count(code) + 1) for code in range(low, high + 1)
    }
    total, slopes = 0.0, []
    for value in at:
        inside = min(max(value, low), high)
        left = min(math.floor(inside), high - 1)
        slope = price[left + 1] - price[left]
        total += price[left] + (inside - left) * slope
        slopes.append(slope / len(at) if low <= value <= high else 0.0)
    assert any(slope == 0 for slope in slopes)
    assert float(found.detach()) == pytest.approx(total / len(at), rel=1e-5)
    wanted = torch.tensor(slopes).reshape(weight.shape) / step
    torch.testing.assert_close(weight.grad, wanted, rtol=1e-3, atol=1e-6)
    assert float(held.step.grad) == pytest.approx(-sum(s * v for s, v in zip(slopes, at, strict=True)) / step, rel=1e-3)
    if offset:
        assert float(held.offset.grad) == pytest.approx(-sum(slopes) / step, rel=1e-3)


def test_a_budget_follows_its_schedule():
    learner = fresh()
    learner.attach(Lsq(bits=4).attach(learner))
    given = sources(learner)
    values = []
    for start, stop in ((0.01, 9), (9, 0.01)):
        loss = Rate(bits=Schedule(start=start, stop=stop)).build(learner).eval()
        for progress in (0.0, 1.0):
            learner.module.zero_grad()
            loss(replace(given, progress=progress)).backward()
            values.append(bool(learner.tensor("second.weight").grad.any()))
    # Over the budget it presses, under it it does not.
    assert values == [True, False, False, True]
