"""The objectives there are; a recipe also takes a user's own ``file.py:name``, or an object of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar.core.choice import choice
from attar.core.registry import Registry
from attar.methods.distill.cross_entropy import CrossEntropy
from attar.methods.distill.kl import Kl
from attar.methods.distill.own import Own
from attar.methods.distill.soft_cross_entropy import SoftCrossEntropy
from attar.work.objective import Term

OBJECTIVES: Registry[type[Term]] = Registry("objective", CrossEntropy, Kl, SoftCrossEntropy)

if TYPE_CHECKING:
    ObjectiveChoice = Term
else:
    #: The type of a field that holds an objective, chosen by its ``name``.
    ObjectiveChoice = choice(OBJECTIVES, Own)
