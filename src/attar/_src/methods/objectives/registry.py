"""Registry of the objectives; a recipe also accepts a user's own ``file.py:name`` or Python object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar._src.core.registry import Registry
from attar._src.core.spec import spec_choice
from attar._src.methods.objectives.binary import BinaryCrossEntropy, BinaryKl
from attar._src.methods.objectives.cross_entropy import CrossEntropy
from attar._src.methods.objectives.custom import CustomLoss
from attar._src.methods.objectives.dist import Dist
from attar._src.methods.objectives.dkd import Dkd
from attar._src.methods.objectives.kl import Kl, ReverseKl
from attar._src.methods.objectives.layers.attention import Attention
from attar._src.methods.objectives.layers.hint import Hint
from attar._src.methods.objectives.mse_logits import MseLogits
from attar._src.methods.objectives.other_outputs import OtherOutputs
from attar._src.methods.objectives.soft_cross_entropy import SoftCrossEntropy
from attar._src.methods.prune.lasso import Lasso
from attar._src.methods.quantize.qat.damping import Damping
from attar._src.methods.quantize.qat.rate import Rate
from attar._src.work.term import Term

OBJECTIVES: Registry[type[Term]] = Registry(
    "objective",
    CrossEntropy,
    Kl,
    ReverseKl,
    SoftCrossEntropy,
    MseLogits,
    Dkd,
    Dist,
    BinaryCrossEntropy,
    BinaryKl,
    Hint,
    Attention,
    OtherOutputs,
    Rate,
    Damping,
    Lasso,
)

if TYPE_CHECKING:
    ObjectiveChoice = Term
else:
    #: The type of a field that holds an objective, chosen by its ``name``.
    ObjectiveChoice = spec_choice(OBJECTIVES, CustomLoss)
