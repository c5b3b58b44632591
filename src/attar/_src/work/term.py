"""Term: an objective as a recipe gives it, with its weight in the sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attar._src.core.spec import Spec
from attar._src.train.schedule import Scheduled
from attar._src.work.learner import Learner
from attar._src.work.objective import Objective
from attar._src.work.size_budget import SizeBudget


class Term(Spec):
    """An objective in a recipe: one term of the sum.

    Attributes:
        needs: what it requires of the stage: ``labels``.
        weight: factor, a number or a schedule.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    name: str
    weight: Scheduled = 1.0

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models whose outputs it needs."""
        return ()

    def features(self) -> tuple[str, ...]:
        """Return the paths of the student's modules whose outputs it needs."""
        return ()

    def teacher_features(self) -> Mapping[str, tuple[str, ...]]:
        """Return model name -> paths of the modules whose outputs it needs, none for all outputs of the model."""
        return {}

    def size_budget(self) -> SizeBudget | None:
        """Return the upper bound of the file's size, None without a budget."""
        return None

    def build(self, learner: Learner) -> Objective:
        """Return the objective for a module in training; it may look at the learner here but must not keep it."""
        raise NotImplementedError
