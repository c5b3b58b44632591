"""A user's own rule, from a file or an object of Python."""

from __future__ import annotations

from typing import Any

from pydantic import field_serializer
from pydantic.json_schema import SkipJsonSchema

from attar.core.describe import reference
from attar.core.errors import SpecError
from attar.core.registry import load_object
from attar.methods.distill.own import fresh
from attar.work.constraint import Constraint, Rule
from attar.work.learner import Learner


class OwnRule(Rule):
    """A constraint of one's own: ``{name: rules.py:clamp, arguments: {limit: 1}}``.

    It is a :class:`~attar.work.constraint.Rule` or its class, or is called as ``rule(learner, **arguments)`` and
    returns a :class:`~attar.work.constraint.Constraint`. An object is copied whenever it is attached.

    Attributes:
        name: ``file.py:name``, ``package.module:name`` or the object.
        arguments: keyword arguments.
    """

    name: str | SkipJsonSchema[Any]
    arguments: dict[str, Any] = {}

    def attach(self, learner: Learner) -> Constraint:
        """Return the constraint.

        Raises:
            SpecError: the name leads to nothing that makes one.
        """
        found = load_object(self.name) if isinstance(self.name, str) else self.name
        arguments = fresh(self.arguments, reference(self.name))
        if isinstance(found, type) and issubclass(found, Rule):
            found = found(**arguments)
        else:
            found = fresh(found, reference(self.name))
        made = found.attach(learner) if isinstance(found, Rule) else found(learner, **arguments)
        if not isinstance(made, Constraint):
            raise SpecError(f"{reference(self.name)} made {type(made).__name__}; a rule makes a Constraint")
        return made

    @field_serializer("name")
    def _written(self, name: Any) -> str:
        return reference(name)
