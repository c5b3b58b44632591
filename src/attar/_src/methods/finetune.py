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
    Field(min_length=1),
    BeforeValidator(
        lambda value: value if isinstance(value, list | tuple) else (value,),
        json_schema_input_type=ObjectiveChoice | Annotated[tuple[ObjectiveChoice, ...], Field(min_length=1)],
    ),
]


class ConstrainedStage(TrainingStage):
    """Base of the training stages of this package.

    Attributes:
        constraints: rules attached in this stage; they stay in later stages.
    """

    constraints: tuple[ConstraintChoice, ...] = ()

    def attached_rules(self) -> tuple[Rule, ...]:
        return self.constraints


class ObjectiveStage(ConstrainedStage):
    """Base of the training stages that take any terms.

    Attributes:
        objective: the terms of the loss.
    """

    objective: Terms = (CrossEntropy(),)

    def loss_terms(self) -> tuple[Term, ...]:
        return self.objective


class Finetune(ObjectiveStage):
    """Minimise a weighted sum of terms under constraints.

    Quantized distillation, for example, is ``objective: [kl, cross_entropy], constraints: [quantize]``.
    """

    stage: Literal["finetune"] = "finetune"
