"""The objectives there are; a recipe also takes a user's own ``file.py:name``, or an object of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar.core.choice import choice
from attar.core.registry import Registry
from attar.methods.distill.attention import Attention
from attar.methods.distill.cross_entropy import CrossEntropy
from attar.methods.distill.dist import Dist
from attar.methods.distill.dkd import Dkd
from attar.methods.distill.hint import Hint
from attar.methods.distill.kl import Kl
from attar.methods.distill.mse_logits import MseLogits
from attar.methods.distill.own import Own
from attar.methods.distill.reverse_kl import ReverseKl
from attar.methods.distill.soft_cross_entropy import SoftCrossEntropy
from attar.methods.quantize.damping import Damping
from attar.methods.quantize.rate import Rate
from attar.work.objective import Term

OBJECTIVES: Registry[type[Term]] = Registry(
    "objective", CrossEntropy, Kl, ReverseKl, SoftCrossEntropy, MseLogits, Dkd, Dist, Hint, Attention, Rate, Damping
)

if TYPE_CHECKING:
    ObjectiveChoice = Term
else:
    #: The type of a field that holds an objective, chosen by its ``name``.
    ObjectiveChoice = choice(OBJECTIVES, Own)
