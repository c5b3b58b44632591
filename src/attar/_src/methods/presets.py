"""Training stages with names of their own: each is a ``finetune`` with certain terms and rules."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from attar._src.core.spec import explain
from attar._src.methods.finetune import Terms
from attar._src.methods.objectives.cross_entropy import CrossEntropy
from attar._src.methods.objectives.kl import Kl
from attar._src.methods.objectives.registry import ObjectiveChoice
from attar._src.methods.objectives.soft_cross_entropy import SoftCrossEntropy
from attar._src.methods.objectives.soft_targets import Teachers, Temperature
from attar._src.methods.prune.prune import Prune, Pruning
from attar._src.methods.quantize.field_types import GranularityChoice, GridBits
from attar._src.methods.quantize.low_precision import LowPrecision
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.qat.rate import Rate
from attar._src.methods.quantize.qat.straight_through import Rounding, StraightThrough
from attar._src.methods.rules import ConstraintChoice
from attar._src.methods.training_stage import TrainingStage
from attar._src.train.schedule import Schedule, Scheduled
from attar._src.work.rule import Rule
from attar._src.work.term import Term


def _no_less_than_0(value: Scheduled) -> Scheduled:
    if isinstance(value, Schedule) and min(value.start, value.stop) < 0:
        raise ValueError(f"a factor of {min(value.start, value.stop):g} is below 0; start and stop must be 0 or above")
    return value


#: What a loss is multiplied by: a number or a schedule of one, never below 0.
Factor = Annotated[Annotated[float, Field(ge=0)] | Schedule, AfterValidator(_no_less_than_0)]


def _taught(alpha: Factor, beta: Factor) -> None:
    """Refuse a loss of no terms."""
    if alpha == 0 and beta == 0:
        raise ValueError("alpha and beta are both 0: there is nothing to learn from")


#: What is left of a budget for its last fluctuations.
_MARGIN = 0.01


class Train(TrainingStage):
    """Learn from the labels.

    Attributes:
        loss: what is minimised.
        constraints: what the module is held to.
    """

    stage: Literal["train"] = "train"
    loss: ObjectiveChoice = CrossEntropy()
    constraints: tuple[ConstraintChoice, ...] = ()

    def loss_terms(self) -> tuple[Term, ...]:
        """Return ``loss``."""
        return (self.loss,)

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return ``constraints``."""
        return self.constraints


class Distill(TrainingStage):
    """Learn from a teacher and from the labels: ``alpha T^2 KL(teacher_T || student_T) + beta CE``.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble.
        temperature: T, a number or a schedule.
        alpha: the factor of the soft loss, a number or a schedule.
        beta: the factor of the hard loss; without labels, 0.
        loss: the soft loss.
        hard: the hard loss.
        constraints: what the module is held to.
    """

    stage: Literal["distill"] = "distill"
    teacher: Teachers
    temperature: Temperature = 4.0
    alpha: Factor = 0.9
    beta: Factor = 0.1
    loss: Literal["kl", "soft_cross_entropy"] = "kl"
    hard: ObjectiveChoice = CrossEntropy()
    constraints: tuple[ConstraintChoice, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hard.weight != 1:
            raise ValueError(f"beta is the weight of the hard loss; leave out hard.weight (got {self.hard.weight})")
        _taught(self.alpha, self.beta)
        return self

    def loss_terms(self) -> tuple[Term, ...]:
        """Return the soft loss and, unless ``beta`` is 0, the hard loss."""
        soft = {"kl": Kl, "soft_cross_entropy": SoftCrossEntropy}[self.loss]
        terms: list[Term] = [soft(teacher=self.teacher, temperature=self.temperature, weight=self.alpha)]
        if self.beta != 0:
            terms.append(self.hard.model_copy(update={"weight": self.beta}))
        return tuple(terms)

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return ``constraints``."""
        return self.constraints


class PruneStage(Pruning, TrainingStage):
    """Train while weights are pruned; the fields are those of ``Pruning`` too.

    Attributes:
        objective: what is minimised.
        constraints: what else the module is held to.
    """

    stage: Literal["prune"] = "prune"
    objective: Terms = (CrossEntropy(),)
    constraints: tuple[ConstraintChoice, ...] = ()

    def loss_terms(self) -> tuple[Term, ...]:
        """Return ``objective``."""
        return self.objective

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return the rule ``prune`` of the same fields, then ``constraints``."""
        return (Prune(**{name: getattr(self, name) for name in Pruning.model_fields}), *self.constraints)


class QuantizeStage(Rounding, TrainingStage):
    """Train with rounded weights and activations; the fields are those of
    ``Rounding`` too.

    Attributes:
        objective: what is minimised.
        constraints: what else the module is held to.
    """

    stage: Literal["quantize"] = "quantize"
    objective: Terms = (CrossEntropy(),)
    constraints: tuple[ConstraintChoice, ...] = ()

    def loss_terms(self) -> tuple[Term, ...]:
        """Return ``objective``."""
        return self.objective

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return ``constraints``, then the rule ``quantize`` of the same fields."""
        return (*self.constraints, StraightThrough(**{name: getattr(self, name) for name in Rounding.model_fields}))


class Compress(TrainingStage):
    """Learn from a teacher on learned grids under a budget: the file ends at or below ``size`` bits per weight.

    Stands for ``kl`` and ``cross_entropy`` as in ``distill``, ``lsq`` on wide grids, the ``rate`` term with ``size`` as
    the budget of the whole file, ``narrow`` for everything else, and batch-norms taken anew at the end. Begin it from a
    trained module.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble.
        size: bits per weight of the whole file, without the graph, as reports count them: what it
            shall end at or below. A file that is larger all the same is reported.
        bits: bits of a code before it is entropy-coded; None: ``size`` rounded up and two more, from 3 to 8. Frequent
            codes take less than their width, so the grid may be wider than the budget.
        granularity: which weights share a step, as in ``lsq``.
        through: bits the grids have before, wider first, as in ``lsq``.
        offset: whether weights have a learned offset, as in ``lsq``.
        floats: bits of what no grid holds: biases, norms.
        scale_bits: bits of the scales of weights, as in ``narrow``.
        merge: whether batch-norms that stay become two vectors; a file that shall be trained further keeps all four.
        temperature: T, a number or a schedule.
        alpha: the factor of the soft loss, a number or a schedule.
        beta: the factor of the hard loss; without labels, 0.
        reach: the share of the stage by which the budget is reached.
        terms: what else is minimised, such as ``damping``.
        constraints: what else the module is held to.
        norm_batches: as in every stage that trains, here 50; of no effect where there are no batch-norms.
    """

    stage: Literal["compress"] = "compress"
    teacher: Teachers
    size: Annotated[float, Field(gt=0, le=8)]
    bits: GridBits | None = None
    granularity: GranularityChoice = None
    through: tuple[GridBits, ...] = ()
    offset: bool = False
    floats: Literal[8, 16] = 16
    scale_bits: Literal[16, 32] = 32
    merge: bool = True
    temperature: Temperature = 4.0
    alpha: Factor = 0.9
    beta: Factor = 0.1
    reach: Annotated[float, Field(gt=0, le=0.9)] = 0.5
    terms: tuple[ObjectiveChoice, ...] = ()
    constraints: tuple[ConstraintChoice, ...] = ()
    # Made, not constant, so that a record says it always: in one of another stage a number left out is 0.
    norm_batches: Annotated[int, Field(ge=0)] = Field(default_factory=lambda: 50, json_schema_extra={"default": 50})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _taught(self.alpha, self.beta)
        try:
            self._grid()
        except ValidationError as error:
            raise ValueError(explain(error, where="lsq")) from error
        return self

    def size_budget(self) -> float:
        """Return ``size``."""
        return self.size

    def loss_terms(self) -> tuple[Term, ...]:
        """Return ``kl``, ``cross_entropy`` unless ``beta`` is 0, ``rate`` and ``terms``."""
        terms: list[Term] = [Kl(teacher=self.teacher, temperature=self.temperature, weight=self.alpha)]
        if self.beta != 0:
            terms.append(CrossEntropy(weight=self.beta))
        return (*terms, Rate(file=self.size * (1 - _MARGIN), reach=self.reach), *self.terms)

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return ``lsq`` among ``constraints``, then ``low_precision``."""
        before = [rule for rule in self.constraints if not rule.after_grid]
        after = [rule for rule in self.constraints if rule.after_grid]
        narrow = LowPrecision(bits=self.floats, merge=self.merge, scale_bits=self.scale_bits)
        return (*before, self._grid(), *after, narrow)

    def _grid(self) -> Lsq:
        bits = self.bits or min(8, max(3, math.ceil(self.size) + 2))
        return Lsq(bits=bits, granularity=self.granularity, through=self.through, offset=self.offset)
