"""The constraints there are; a recipe also takes a user's own ``file.py:name``, or an object of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar.core.choice import choice
from attar.core.registry import Registry
from attar.methods.own import OwnRule
from attar.methods.prune.activations import PruneActivations
from attar.methods.prune.prune import Prune
from attar.methods.quantize.freeze import Freeze
from attar.methods.quantize.linear import Linear
from attar.methods.quantize.lsq import Lsq
from attar.methods.quantize.narrow import Narrow
from attar.methods.quantize.normalize import Normalize
from attar.methods.quantize.points import Points
from attar.methods.quantize.straight_through import StraightThrough
from attar.work.constraint import Rule

CONSTRAINTS: Registry[type[Rule]] = Registry(
    "constraint", Prune, PruneActivations, StraightThrough, Lsq, Linear, Points, Normalize, Freeze, Narrow
)

if TYPE_CHECKING:
    ConstraintChoice = Rule
else:
    #: The type of a field that holds a constraint, chosen by its ``name``.
    ConstraintChoice = choice(CONSTRAINTS, OwnRule)
