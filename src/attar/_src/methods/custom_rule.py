"""A user's own rule, from a file or a Python object."""

from __future__ import annotations

from typing import Any

from pydantic import field_serializer
from pydantic.json_schema import SkipJsonSchema

from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.core.spec import reference_name
from attar._src.methods.objectives.custom import copy_object
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule


class CustomRule(Rule):
    """A user's own constraint: ``{name: rules.py:clamp, arguments: {limit: 1}}``.

    The name refers to a ``Rule``, a subclass of it, or a function ``rule(learner, **arguments) -> Constraint``. Objects
    are copied at each attachment.

    Attributes:
        name: ``file.py:name``, ``package.module:name`` or the object.
        arguments: keyword arguments.
    """

    name: str | SkipJsonSchema[Any]
    arguments: dict[str, Any] = {}

    def attach(self, learner: Learner) -> Constraint:
        """Return the constraint.

        Raises:
            SpecError: the object makes no constraint.
        """
        found = load_object(self.name) if isinstance(self.name, str) else self.name
        arguments = copy_object(self.arguments, reference_name(self.name))
        if isinstance(found, type) and issubclass(found, Rule):
            found = found(**arguments)
        else:
            found = copy_object(found, reference_name(self.name))
        made = found.attach(learner) if isinstance(found, Rule) else found(learner, **arguments)
        if not isinstance(made, Constraint):
            raise SpecError(f"{reference_name(self.name)} made {type(made).__name__}; a rule makes a Constraint")
        return made

    @field_serializer("name")
    def _written(self, name: Any) -> str:
        return reference_name(name)
