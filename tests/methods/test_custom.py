import functools
import json
import threading
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from tests.methods.toys import fresh
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.custom import CustomLoss
from attar._src.methods.objectives.registry import ObjectiveChoice
from attar._src.methods.rules import ConstraintChoice
from attar._src.train.batch import Batch
from attar._src.work.constraint import Constraint
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.parametrization import Parametrization
from attar._src.work.rule import Rule

OUTPUTS, TARGETS = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 1])
SOURCES = LossInputs(OUTPUTS, (OUTPUTS,), Batch((OUTPUTS,), TARGETS), {"big": OUTPUTS + 1}, 0.0)


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


class Called(Objective):
    def __init__(self, inner, **others):
        super().__init__()
        self.inner = inner

    def forward(self, sources):
        return self.inner(sources.outputs, sources.batch.targets)


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
    assert isinstance(made, CustomLoss)
    assert float(made.build(None)(SOURCES).detach()) == expected


def test_a_file_is_one_too(tmp_path):
    path = tmp_path / "losses.py"
    path.write_text("def focal(outputs, targets, gamma=1):\n    return gamma * outputs.mean()\n")
    made = term({"name": f"{path}:focal", "arguments": {"gamma": 3}, "weight": 0.5})
    assert float(made.build(None)(SOURCES)) == 3.0
    assert made.weight == 0.5
    # Where the file lies is nobody's business.
    assert made.describe() == {"name": "losses.py:focal", "arguments": {"gamma": 3}, "weight": 0.5}


def test_what_it_needs_is_what_it_says():
    assert term(distance).needs == {"labels"}
    quiet = term({"name": Follow, "labels": False, "teacher": ["big", "small"]})
    assert quiet.needs == frozenset()
    assert quiet.teachers() == ("big", "small")
    assert quiet.describe()["name"].endswith("test_custom:Follow")


def test_parameters_of_its_own_are_trained():
    assert [name for name, _ in term(Weighed).build(None).named_parameters()] == ["loss.factor"]


@pytest.mark.parametrize("given", [Weighed(), Called(Weighed())], ids=["module", "objective"])
def test_an_object_is_copied_so_that_no_stage_goes_on_from_another(given):
    made = term(given)
    for _ in range(2):
        (factor,) = made.build(None).parameters()
        assert factor.detach() == 1.0
        with torch.no_grad():
            factor.fill_(5.0)
    inner = Weighed()
    (copied,) = term({"name": Called, "arguments": {"inner": inner}}).build(None).parameters()
    assert copied is not inner.factor


def test_what_cannot_be_copied_is_said():
    with pytest.raises(SpecError, match=r"cannot be copied.*name its class"):
        term(functools.partial(distance, threading.Lock())).build(None)


def test_arguments_that_json_has_no_words_for_are_described():
    given = {
        "name": Called,
        "arguments": {"inner": Weighed(), "at": torch.ones(2), "by": {1: distance}, "dtype": [torch.float16]},
    }
    described = term(given).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["arguments"]["by"] == {"1": f"{__name__}:distance"}
    assert described["arguments"]["inner"] == f"{__name__}:Weighed"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": 3}, "is a int, not callable as loss"),
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


class Halve(Parametrization):
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
    assert "test_custom:" in rule.describe()["name"]


def test_an_argument_that_a_rule_has_not_is_named_as_in_any_spec():
    rule = TypeAdapter(ConstraintChoice).validate_python({"name": HalveRule, "arguments": {"layer": ["head"]}})
    with pytest.raises(SpecError, match=r"HalveRule\.arguments: no key named 'layer'; did you mean 'layers'"):
        rule.attach(fresh())


class Kept(Rule):
    name: str = "kept"
    made: list[Any] = []

    def attach(self, learner):
        self.made.append(Constraint({"head.weight": Halve()}))
        return self.made[0]


def test_a_rule_that_is_an_object_makes_a_constraint_of_its_own_each_time():
    rule = TypeAdapter(ConstraintChoice).validate_python({"name": Kept()})
    assert rule.attach(None) is not rule.attach(None)


def test_what_makes_no_constraint_is_refused():
    rule = TypeAdapter(ConstraintChoice).validate_python({"name": lambda learner: 3})
    with pytest.raises(SpecError, match="returned int; a rule should return a Constraint"):
        rule.attach(fresh())
