"""The constraints there are; a recipe also takes a user's own ``file.py:name``, or an object of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar._src.core.choice import spec_choice
from attar._src.core.registry import Registry
from attar._src.methods.custom_rule import CustomRule
from attar._src.methods.prune.activations import PruneActivations
from attar._src.methods.prune.prune import Prune
from attar._src.methods.quantize.low_precision import LowPrecision
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.polino.codebook import LearnedCodebook
from attar._src.methods.quantize.polino.uniform import Uniform
from attar._src.methods.quantize.qat.freeze import Freeze
from attar._src.methods.quantize.qat.normalize import Normalize
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.work.rule import Rule

CONSTRAINTS: Registry[type[Rule]] = Registry(
    "constraint",
    Prune,
    PruneActivations,
    StraightThrough,
    Lsq,
    Uniform,
    LearnedCodebook,
    Normalize,
    Freeze,
    LowPrecision,
)

if TYPE_CHECKING:
    ConstraintChoice = Rule
else:
    #: The type of a field that holds a constraint, chosen by its ``name``.
    ConstraintChoice = spec_choice(CONSTRAINTS, CustomRule)
