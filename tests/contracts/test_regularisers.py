"""What every term owes that looks at weights alone: neither at outputs nor at labels nor at teachers."""

import pytest
import torch
from pydantic import TypeAdapter
from tests.contracts.test_objectives import REGULARISERS
from tests.methods.toys import context, data, fresh, same

from attar.core.errors import SpecError
from attar.methods.distill.registry import OBJECTIVES, ObjectiveChoice
from attar.methods.finetune import Finetune
from attar.methods.quantize.lsq import Lsq
from attar.methods.quantize.straight_through import StraightThrough
from attar.train.batch import Batch
from attar.work.objective import Sources

NAMES = [name for name in OBJECTIVES if name in REGULARISERS]
GRIDS = [Lsq(bits=2), Lsq(bits=4, offset=True), StraightThrough(bits=3, granularity="group:16")]


@pytest.fixture(params=NAMES)
def term(request):
    return OBJECTIVES[request.param]()


@pytest.fixture(params=GRIDS, ids=lambda rule: f"{rule.name}-{rule.bits}")
def learner(request):
    learner = fresh()
    learner.attach(request.param.attach(learner))
    return learner


def sources(seed=0, count=4):
    outputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    x, y = data(count, seed)
    return Sources(outputs, (outputs,), Batch((x,), y), {}, 0.5)


def test_every_one_is_registered():
    assert set(NAMES) == REGULARISERS


def test_one_finite_number_with_a_gradient_for_the_weights_alone(term, learner):
    given, loss = sources(), term.build(learner)
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
    assert torch.equal(loss(sources()), loss(sources(seed=1, count=7)))


def test_evaluation_changes_nothing(term, learner):
    loss = term.build(learner)
    loss(sources())
    loss.eval()
    before = {name: tensor.clone() for name, tensor in {**loss.state_dict(), **learner.module.state_dict()}.items()}
    loss(sources())
    assert same(before, {**loss.state_dict(), **learner.module.state_dict()})


def test_a_step_against_the_gradient_helps(term, learner):
    loss = term.build(learner).eval()
    before = loss(sources())
    before.backward()
    with torch.no_grad():
        for name in learner.weights:
            weight = learner.tensor(name)
            weight -= 1e-3 * weight.grad
    assert loss(sources()) < before


def test_weights_that_are_kept_do_not_count(term):
    learner = fresh()
    learner.attach(Lsq(keep=("head",)).attach(learner))
    loss = term.build(learner).eval()
    before = loss(sources()).detach()
    with torch.no_grad():
        learner.tensor("head.weight").mul_(3)
    assert torch.equal(loss(sources()), before)


def test_without_a_grid_it_is_refused(term):
    with pytest.raises(SpecError, match=f"{term.name}: no weight is on an evenly spaced grid.*lsq"):
        term.build(fresh())


def test_it_is_trained_with_beside_another(term, tmp_path):
    rows, learner = [], fresh()
    beside = {"name": term.name, "weight": 0.01}
    stage = Finetune(epochs=2, batch=32, objective=["cross_entropy", beside], constraints=[{"name": "lsq", "bits": 2}])
    stage.run(learner, context(tmp_path, count=64, log=rows.append))
    assert all(row[term.name] > 0 for row in rows)


def test_it_needs_nothing(term):
    assert term.needs == frozenset()
    assert term.teachers() == ()


def test_the_description_is_json_both_ways(term):
    adapter = TypeAdapter(ObjectiveChoice)
    assert adapter.validate_python(term.model_dump(mode="json")) == term
    assert adapter.validate_python(term.describe()) == term
