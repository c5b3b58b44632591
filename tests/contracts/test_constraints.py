"""What every registered constraint must do."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from tests.methods.toys import data, fresh, same

from attar.artifact.writer import pack
from attar.core.errors import UnknownName
from attar.methods.prune.scores import SCORES
from attar.methods.registry import CONSTRAINTS, ConstraintChoice
from attar.runtime import Session
from attar.work.constraint import Moment
from attar.work.workpiece import Use

FIELDS = {
    "prune": ({"sparsity": 0.6}, {"threshold": 0.1, "shape": "once"}, {"sparsity": 0.4, "scope": "global"}),
    "prune_activations": ({"sparsity": 0.3}, {"threshold": 0.2}),
    "quantize": (
        {"bits": 3, "activations": 8},
        {"bits": 2, "scales": "mse", "granularity": {"kind": "group", "size": 5}},
        {"bits": 8, "activations": 4, "granularity": {"kind": "tensor"}},
        {"bits": 4, "granularity": {"kind": "bucket", "size": 32}},
        {"bits": 5, "granularity": "group:16", "activations": 7},
    ),
}
CASES = [(name, fields) for name in CONSTRAINTS for fields in FIELDS[name]]
STEPS = 6


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{len(str(case[1]))}")
def rule(request):
    name, fields = request.param
    return CONSTRAINTS[name](**fields)


def trained(rule, steps=STEPS, learner=None, begin=0):
    """A learner held to the rule after some steps of plain descent."""
    if learner is None:
        learner = fresh()
        learner.attach(rule.attach(learner))
    graph = learner.graph(train=True)
    x, y = data(32)
    for step in range(begin, steps):
        learner.update(Moment(step, STEPS))
        torch.nn.functional.cross_entropy(graph(x), y).backward()
        with torch.no_grad():
            for parameter in graph.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    for constraint in learner.constraints:
        constraint.sync(lambda tensor: tensor.clone())
    return learner


def test_what_is_stored_is_what_was_read(rule):
    learner = trained(rule)
    learner.settle()
    baked = learner.baked()
    assert set(baked) == {name for c in learner.constraints for name in c.weights}
    for name, tensor in baked.items():
        value = learner.tensor(name).detach()
        for held in learner.held(name):
            value = held.eval()(value)
        assert np.array_equal(tensor.dense(), value.numpy())


def test_the_file_computes_what_was_trained(rule):
    learner = trained(rule)
    learner.settle()
    piece = learner.deployed()
    x = data(16, seed=2)[0]
    session = Session(pack(piece.contents(Use())))
    got = session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name]
    with torch.no_grad():
        wanted = piece.simulate(torch.float64)(x.double()).numpy()
        plain = learner.graph(train=False)(x).numpy()
    assert np.abs(got - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    # Rounding in a fused layer and rounding before the fusion may differ by a step here and there.
    step = max((grid.scale for grid in piece.activations.values()), default=1e-5)
    assert np.abs(plain - wanted).max() <= step * 3


def test_it_acts(rule):
    learner = trained(rule)
    held = {name: each for c in learner.constraints for name, each in {**c.weights, **c.values}.items()}
    assert held
    x = data(16)[0]
    with torch.no_grad():
        graph = learner.graph(train=False)
        learner.constraints.clear()
        assert not torch.equal(graph(x), learner.graph(train=False)(x))


def test_evaluation_changes_nothing(rule):
    learner = trained(rule)
    before = [{k: v.clone() for k, v in c.state_dict().items()} for c in learner.constraints]
    graph = learner.graph(train=False)
    with torch.no_grad():
        first, second = graph(data(16)[0]), graph(data(16, seed=4)[0] * 100)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    assert all(same(old, c.state_dict()) for old, c in zip(before, learner.constraints, strict=True))


def test_its_state_is_all_it_goes_on_from(rule):
    half = trained(rule, STEPS // 2)
    module = {k: v.clone() for k, v in half.module.state_dict().items()}
    states = [{k: v.clone() for k, v in c.state_dict().items()} for c in half.constraints]
    whole = trained(rule, STEPS, half, STEPS // 2)
    again = fresh(1)
    again.attach(rule.attach(again))
    again.module.load_state_dict(module)
    for constraint, state in zip(again.constraints, states, strict=True):
        constraint.load_state_dict(state)
    again = trained(rule, STEPS, again, STEPS // 2)
    assert same(whole.module.state_dict(), again.module.state_dict())
    assert all(same(a.state_dict(), b.state_dict()) for a, b in zip(whole.constraints, again.constraints, strict=True))


def test_settling_twice_is_settling_once(rule):
    learner = trained(rule)
    learner.settle()
    before = {k: v.clone() for k, v in learner.module.state_dict().items()}
    learner.settle()
    assert same(before, learner.module.state_dict())


def test_ranks_agree_after_sync(rule):
    both = [fresh(0), fresh(1)]
    for seed, learner in enumerate(both):
        learner.attach(rule.attach(learner))
        learner.update(Moment(0, STEPS))
        learner.graph(train=True)(data(32, seed)[0])
    # Each tensor that one rank has to average meets the same one of the other.
    seen: list[list[torch.Tensor]] = [[], []]
    for learner, tensors in zip(both, seen, strict=True):
        for constraint in learner.constraints:
            constraint.sync(lambda tensor, tensors=tensors: (tensors.append(tensor.clone()), tensor)[1])
    means = [(one + other) / 2 for one, other in zip(*seen, strict=True)]
    for learner in both:
        given = iter(means)
        for constraint in learner.constraints:
            constraint.sync(lambda tensor, given=given: next(given).clone())
    for one, other in zip(both[0].constraints, both[1].constraints, strict=True):
        assert same(one.state_dict(), other.state_dict())


def test_the_description_is_json_both_ways(rule):
    adapter = TypeAdapter(ConstraintChoice)
    assert adapter.validate_python(rule.model_dump(mode="json")) == rule
    assert adapter.validate_python(rule.describe()) == rule


def test_a_glob_that_matches_nothing_lists_near_names(rule):
    field = "layers" if "layers" in type(rule).model_fields else "keep"
    with pytest.raises(UnknownName, match=r"no layer named 'secnd'; did you mean 'second'"):
        rule.model_copy(update={field: ("secnd",)}).attach(fresh())


@pytest.mark.parametrize("name", list(CONSTRAINTS))
def test_every_entry_says_what_it_is(name):
    assert len(CONSTRAINTS[name].__doc__) > 100


@pytest.mark.parametrize("score", [SCORES[name] for name in SCORES], ids=list(SCORES))
def test_a_score_is_a_figure_for_each_element(score):
    for shape in [(3, 4), (2, 3, 3, 3), (0, 3), (1,)]:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        found = score.score(weight)
        assert found.shape == shape
        assert torch.isfinite(found).all()
        assert (score.score(torch.zeros(shape)) == 0).all()
        assert torch.equal(score.score(weight), found)
