"""A user's own rule: ``file.py:name`` or a Python object."""

from __future__ import annotations

from typing import Any

from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.core.spec import build_spec, reference_name
from attar._src.methods.objectives.custom import ObjectName, copy_object
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule


class CustomRule(Rule):
    """A user's own rule: ``{name: rules.py:clamp, arguments: {limit: 1}}``.

    The name refers to a ``Rule``, a subclass of it, or a function ``rule(learner, **arguments) -> Constraint``. Objects
    are copied each time they are attached.

    Attributes:
        arguments: keyword arguments.
    """

    name: ObjectName
    arguments: dict[str, Any] = {}

    def attach(self, learner: Learner) -> Constraint:
        rule = load_object(self.name) if isinstance(self.name, str) else self.name
        arguments = copy_object(self.arguments, reference_name(self.name))
        if isinstance(rule, type) and issubclass(rule, Rule):
            rule = build_spec(rule, where=f"{reference_name(self.name)}.arguments", **arguments)
        else:
            rule = copy_object(rule, reference_name(self.name))
        constraint = rule.attach(learner) if isinstance(rule, Rule) else rule(learner, **arguments)
        if not isinstance(constraint, Constraint):
            raise SpecError(
                f"{reference_name(self.name)} returned {type(constraint).__name__}; a rule should return a Constraint"
            )
        return constraint
