"""Rule: a constraint as a recipe gives it."""

from __future__ import annotations

from typing import ClassVar

from attar._src.core.spec import Spec
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner


class Rule(Spec):
    """A constraint in a recipe.

    Attributes:
        after_grid: whether it acts on an existing grid and so must be attached after it.
    """

    after_grid: ClassVar[bool] = False

    name: str

    def attach(self, learner: Learner) -> Constraint:
        """Return the constraint on ``learner``'s weights and activations; it must not keep the learner.

        Raises:
            UnknownName: a glob matches no layer.
            SpecError: the rule does not fit a weight.
        """
        raise NotImplementedError
