"""Named training stages (``train``, ``distill``, ...): each is a ``finetune`` with preset terms and rules."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from attar._src.core.spec import explain
from attar._src.methods.finetune import ConstrainedStage, ObjectiveStage
from attar._src.methods.objectives.binary import BinaryCrossEntropy, BinaryKl
from attar._src.methods.objectives.by_outputs import HardLoss, SoftLoss
from attar._src.methods.objectives.cross_entropy import CrossEntropy
from attar._src.methods.objectives.kl import Kl
from attar._src.methods.objectives.registry import ObjectiveChoice
from attar._src.methods.objectives.soft_cross_entropy import SoftCrossEntropy
from attar._src.methods.objectives.soft_targets import Teachers, Temperature
from attar._src.methods.prune.prune import Prune
from attar._src.methods.prune.schedule import Pruning
from attar._src.methods.quantize.field_types import GranularityChoice, GridBits
from attar._src.methods.quantize.low_precision import LowPrecision
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.qat.rate import MARGIN, RECORD, Rate
from attar._src.methods.quantize.qat.straight_through import Rounding, StraightThrough
from attar._src.train.schedule import Schedule, Scheduled
from attar._src.work.rule import Rule
from attar._src.work.size_budget import SizeBudget
from attar._src.work.term import Term


def _refuse_negative(value: Scheduled) -> Scheduled:
    if isinstance(value, Schedule) and (lowest := min(value.start, value.stop)) < 0:
        raise ValueError(f"a factor of {lowest:g} is below 0; start and stop must be 0 or above")
    return value


#: Factor of a loss, a number or a schedule, 0 or above.
Factor = Annotated[Annotated[float, Field(ge=0)] | Schedule, AfterValidator(_refuse_negative)]


class Train(ConstrainedStage):
    """Train on labels.

    Attributes:
        loss: the loss.
    """

    stage: Literal["train"] = "train"
    loss: ObjectiveChoice = CrossEntropy()

    def loss_terms(self) -> tuple[Term, ...]:
        return (self.loss,)


class DistillationStage(ConstrainedStage):
    """Base of the stages that learn from a teacher and from labels.

    Attributes:
        teacher: name of a model; for an ensemble a list of names, or name -> weight.
        temperature: T, a number or a schedule.
        alpha: factor of the loss against the teacher, a number or a schedule.
        beta: factor of the loss against the labels; 0 without labels.
        terms: further terms, such as ``other_outputs`` or ``damping``.
    """

    teacher: Teachers
    temperature: Temperature = 4.0
    alpha: Factor = 0.9
    beta: Factor = 0.1
    terms: tuple[ObjectiveChoice, ...] = ()

    @model_validator(mode="after")
    def _refuse_no_loss(self) -> Self:
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta are both 0, so no loss is left; set one above 0")
        return self

    def _losses(
        self, soft: type[Kl | SoftCrossEntropy | BinaryKl] = SoftLoss, hard: Term | None = None
    ) -> tuple[Term, ...]:
        """Return the loss against the teacher, and, unless ``beta`` is 0, ``hard`` with that weight."""
        first = soft(teacher=self.teacher, temperature=self.temperature, weight=self.alpha)
        hard = (HardLoss() if hard is None else hard).model_copy(update={"weight": self.beta})
        return (first, *([] if self.beta == 0 else [hard]))


class Distill(DistillationStage):
    """Learn from a teacher and from labels: ``alpha T^2 KL(teacher_T || student_T) + beta CE`` (Hinton et al. 2015,
    "Distilling the knowledge in a neural network", section 2).

    Attributes:
        loss: the loss against the teacher. If null, outputs and targets tell: ``binary_kl`` if there is one output, or
            a target for each output, else ``kl``.
        hard: the loss against the labels; if null, ``binary_cross_entropy`` or ``cross_entropy``, as fits ``loss``.
    """

    stage: Literal["distill"] = "distill"
    loss: Literal["kl", "soft_cross_entropy", "binary_kl"] | None = None
    hard: ObjectiveChoice | None = None

    @model_validator(mode="after")
    def _refuse_two_weights(self) -> Self:
        if self.hard is not None and self.hard.weight != 1:
            raise ValueError(f"beta is the weight of the hard loss; leave out hard.weight (got {self.hard.weight})")
        return self

    def loss_terms(self) -> tuple[Term, ...]:
        if self.loss is None:
            return (*self._losses(hard=self.hard), *self.terms)
        soft, hard = _LOSSES[self.loss]
        return (*self._losses(soft, hard if self.hard is None else self.hard), *self.terms)


#: Name of a loss against the teacher -> that loss, and the one against labels that goes with it.
_LOSSES: dict[str, tuple[type[Kl | SoftCrossEntropy | BinaryKl], Term]] = {
    "kl": (Kl, CrossEntropy()),
    "soft_cross_entropy": (SoftCrossEntropy, CrossEntropy()),
    "binary_kl": (BinaryKl, BinaryCrossEntropy()),
}


class PruneStage(Pruning, ObjectiveStage):
    """Train while pruning weights. ``constraints`` are attached after the pruning."""

    stage: Literal["prune"] = "prune"

    def attached_rules(self) -> tuple[Rule, ...]:
        return (Prune(**{name: getattr(self, name) for name in Pruning.model_fields}), *self.constraints)


class QuantizeStage(Rounding, ObjectiveStage):
    """Quantization-aware training. ``constraints`` are attached before the grids."""

    stage: Literal["quantize"] = "quantize"

    def attached_rules(self) -> tuple[Rule, ...]:
        return (*self.constraints, StraightThrough(**{name: getattr(self, name) for name in Rounding.model_fields}))


class Compress(DistillationStage):
    """Distil on learned grids so that the file has at most ``size`` bits per weight, or ``max_bytes``.

    Combines the losses of ``distill``, ``lsq`` on wide grids, the term ``rate`` with this budget of the whole file,
    ``low_precision`` for biases and norms, and re-estimated batch-norms. It should start from a trained module.

    Attributes:
        size: budget of the whole file without its graph, in bits per weight as in reports. A larger file is reported.
        max_bytes: instead of ``size``: budget of the whole file with its graph, in bytes.
        bits: bits of a code before entropy coding; if None, ``size`` rounded up plus 2, from 3 to 8 (size 1.5 -> 4
            bits), 4 with ``max_bytes``. Frequent codes take fewer bits than their width, so the grid may be wider than
            the budget.
        granularity, through, offset, activations, keep: which weights share a step, wider grids before, learned
            offsets, bits of what layers read, layers in floating point; as in ``lsq``.
        floats, scale_bits, merge: ``bits``, ``scale_bits`` and ``merge`` of ``low_precision``.
        reach: share of the stage after which the budget applies in full.
    """

    stage: Literal["compress"] = "compress"
    size: Annotated[float, Field(gt=0, le=8)] | None = None
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    bits: GridBits | None = None
    granularity: GranularityChoice = None
    through: tuple[GridBits, ...] = ()
    offset: bool = False
    activations: GridBits | None = None
    keep: tuple[str, ...] = ()
    floats: Literal[8, 16] = 16
    scale_bits: Literal[16, 32] = 32
    merge: bool = True
    reach: Annotated[float, Field(gt=0, le=0.9)] = 0.5
    # A factory, so that the record always has the value: a missing one means 0, the default of other stages.
    norm_batches: Annotated[int, Field(ge=0)] = Field(default_factory=lambda: 50, json_schema_extra={"default": 50})

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        if (self.size is None) == (self.max_bytes is None):
            raise ValueError("give one of the two: size (bits per weight, 2.0) or max_bytes (of the file, 9000)")
        try:
            self._grid()
        except ValidationError as error:
            raise ValueError(explain(error, where="lsq")) from error
        return self

    def size_budget(self) -> SizeBudget | None:
        return SizeBudget.of(self.size, self.max_bytes)

    def loss_terms(self) -> tuple[Term, ...]:
        file = None if self.size is None else self.size * (1 - MARGIN)
        most = None if self.max_bytes is None else max(round(self.max_bytes * (1 - MARGIN)) - RECORD, 1)
        rate = Rate(file=file, max_bytes=most, reach=self.reach)
        return (*self._losses(), rate, *self.terms)

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return ``constraints`` with ``lsq`` before those that need a grid, then ``low_precision``."""
        before = [rule for rule in self.constraints if not rule.after_grid]
        after = [rule for rule in self.constraints if rule.after_grid]
        low_precision = LowPrecision(bits=self.floats, merge=self.merge, scale_bits=self.scale_bits)
        return (*before, self._grid(), *after, low_precision)

    def _grid(self) -> Lsq:
        bits = self.bits or (4 if self.size is None else min(8, max(3, math.ceil(self.size) + 2)))
        return Lsq(
            bits=bits,
            granularity=self.granularity,
            through=self.through,
            offset=self.offset,
            activations=self.activations,
            keep=self.keep,
        )
