"""``finetune``: the training stage with any terms and any rules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from attar._src.methods.objectives.cross_entropy import CrossEntropy
from attar._src.methods.objectives.registry import ObjectiveChoice
from attar._src.methods.rules import ConstraintChoice
from attar._src.methods.training_stage import TrainingStage
from attar._src.work.rule import Rule
from attar._src.work.term import Term

#: A term or a list of terms.
Terms = Annotated[
    tuple[ObjectiveChoice, ...],
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else (value,)),
    Field(min_length=1),
]


class Finetune(TrainingStage):
    """Minimise a weighted sum of terms under constraints.

    Quantized distillation, for example, is ``objective: [kl, cross_entropy], constraints: [quantize]``.

    Attributes:
        objective: the terms.
        constraints: rules attached in this stage; they stay in later stages.
    """

    stage: Literal["finetune"] = "finetune"
    objective: Terms = (CrossEntropy(),)
    constraints: tuple[ConstraintChoice, ...] = ()

    def loss_terms(self) -> tuple[Term, ...]:
        """Return ``objective``."""
        return self.objective

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return ``constraints``."""
        return self.constraints
