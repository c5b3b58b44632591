"""The registry of rules, and the type of a rule in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar._src.core.registry import Registry
from attar._src.core.spec import spec_choice
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
    #: The type of a rule in a recipe, chosen by ``name``: a registered word, a user's ``file.py:name`` or an object.
    ConstraintChoice = spec_choice(CONSTRAINTS, CustomRule)
