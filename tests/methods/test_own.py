import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from tests.methods.toys import fresh
from torch import nn

from attar.core.errors import SpecError
from attar.methods.distill.own import Own
from attar.methods.distill.registry import ObjectiveChoice
from attar.methods.registry import ConstraintChoice
from attar.train.batch import Batch
from attar.work.constraint import Constraint, Held, Rule
from attar.work.objective import Objective, Sources

OUTPUTS, TARGETS = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 1])
SOURCES = Sources(OUTPUTS, (OUTPUTS,), Batch((OUTPUTS,), TARGETS), {"big": OUTPUTS + 1}, 0.0)


def distance(outputs, targets, power=2.0):
    return (outputs.sum(-1) - targets).abs().pow(power).mean()


class Weighed(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, outputs, targets):
        return self.factor * distance(outputs, targets)


class Follow(Objective):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, sources):
        return self.factor * (sources.outputs - sources.teachers["big"]).square().mean()


def term(given):
    return TypeAdapter(ObjectiveChoice).validate_python(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (distance, 4.5),
        ({"name": distance, "arguments": {"power": 1.0}}, 1.5),
        (Weighed, 4.5),
        ({"name": Weighed, "arguments": {"factor": 2.0}}, 9.0),
        (Weighed(3.0), 13.5),
        ({"name": Follow, "teacher": "big", "labels": False}, 1.0),
        ({"name": Follow(2.0), "teacher": "big"}, 2.0),
    ],
)
def test_an_object_of_python_is_a_loss(given, expected):
    made = term(given)
    assert isinstance(made, Own)
    assert float(made.build(None)(SOURCES).detach()) == expected


def test_a_file_is_one_too(tmp_path):
    path = tmp_path / "losses.py"
    path.write_text("def focal(outputs, targets, gamma=1):\n    return gamma * outputs.mean()\n")
    made = term({"name": f"{path}:focal", "arguments": {"gamma": 3}, "weight": 0.5})
    assert float(made.build(None)(SOURCES)) == 3.0
    assert made.weight == 0.5
    assert made.describe() == {"name": f"{path}:focal", "arguments": {"gamma": 3}, "weight": 0.5}


def test_what_it_needs_is_what_it_says():
    assert term(distance).needs == {"labels"}
    quiet = term({"name": Follow, "labels": False, "teacher": ["big", "small"]})
    assert quiet.needs == frozenset()
    assert quiet.teachers() == ("big", "small")
    assert quiet.describe()["name"].endswith("test_own:Follow")


def test_parameters_of_its_own_are_trained():
    assert [name for name, _ in term(Weighed).build(None).named_parameters()] == ["loss.factor"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": 3}, "is a int; a loss is called as"),
        ({"name": Weighed(), "arguments": {"factor": 1}}, "takes no arguments"),
        ({"name": "nowhere.py:loss"}, "there is no file"),
        ({"name": lambda outputs, targets: outputs}, r"returned a tensor of shape \(2, 2\); a loss is one number"),
        ({"name": lambda outputs, targets: 3.0}, "returned float"),
    ],
)
def test_what_cannot_work_is_said(given, message):
    with pytest.raises(SpecError, match=message):
        term(given).build(None)(SOURCES)


def test_a_name_that_is_not_registered_is_refused():
    with pytest.raises(ValidationError, match="crossentropy"):
        term("crossentropy")


class Halve(Held):
    def forward(self, x):
        return x / 2


class HalveRule(Rule):
    name: str = "halve"
    layers: tuple[str, ...] = ("*",)

    def attach(self, learner):
        return Constraint({name: Halve() for name in learner.select(self.layers)})


def by_hand(learner, count=1):
    return Constraint({name: Halve() for name in list(learner.weights)[:count]})


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({"name": HalveRule, "arguments": {"layers": ["head"]}}, 1),
        ({"name": HalveRule()}, 3),
        (by_hand, 1),
        ({"name": by_hand, "arguments": {"count": 2}}, 2),
    ],
)
def test_a_rule_of_python_is_a_constraint(given, count):
    rule = TypeAdapter(ConstraintChoice).validate_python(given)
    assert len(rule.attach(fresh()).weights) == count
    assert "test_own:" in rule.describe()["name"]


def test_what_makes_no_constraint_is_refused():
    rule = TypeAdapter(ConstraintChoice).validate_python({"name": lambda learner: 3})
    with pytest.raises(SpecError, match="made int; a rule makes a Constraint"):
        rule.attach(fresh())
