"""Soft targets: what teachers say of every class at a temperature, alone or as an ensemble; below the losses that learn
from a teacher's outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import AfterValidator, Field

from attar._src.core.errors import SpecError
from attar._src.train.schedule import Schedule, Scheduled, value_at
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term


def _stays_warm(value: Scheduled) -> Scheduled:
    # A schedule never leaves the span between its ends.
    if isinstance(value, Schedule) and min(value.start, value.stop) <= 0:
        raise ValueError(f"a temperature of {min(value.start, value.stop):g} is none; start and stop must be above 0")
    return value


#: A softmax temperature: a number or a schedule of one, above 0 throughout.
Temperature = Annotated[Annotated[float, Field(gt=0)] | Schedule, AfterValidator(_stays_warm)]
#: One teacher, several with equal weights, or name -> weight.
Teachers = str | tuple[str, ...] | dict[str, Annotated[float, Field(gt=0)]]
#: A target that stands for no class: padding.
IGNORE_INDEX = -100


class TeacherTerm(Term):
    """A loss that compares the student's outputs with those of teachers.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble.
        ignore_index: the target of positions that do not count, where there are targets.
    """

    teacher: Teachers
    ignore_index: int = IGNORE_INDEX

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models whose outputs it needs."""
        return tuple(teacher_shares(self.teacher))


class SoftTerm(TeacherTerm):
    """``T^2`` times a divergence of two answers at temperature T, the mean over positions.

    Attributes:
        temperature: T, a number or a schedule.
    """

    temperature: Temperature = 4.0

    def apart(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the divergence at each position ``(n, ...)`` of log-probabilities ``(n, ..., classes)``."""
        raise NotImplementedError

    def build(self, learner: Learner) -> Objective:
        """Return the loss; it has no parameters."""
        return _Soft(self)


class _Soft(Objective):
    def __init__(self, term: SoftTerm) -> None:
        super().__init__()
        self.term, self.shares = term, teacher_shares(term.teacher)

    def forward(self, sources: LossInputs) -> torch.Tensor:
        temperature = value_at(self.term.temperature, sources.progress)
        targets = log_soft_targets(sources, self.shares, temperature)
        student = torch.log_softmax(at_least_float32(sources.outputs) / temperature, -1)
        apart = self.term.apart(student, targets)
        return temperature**2 * mean_over_valid(apart, sources, self.term.ignore_index)


def teacher_shares(teachers: Teachers) -> dict[str, float]:
    """Return each teacher's share of the ensemble; the shares sum to 1.

    Raises:
        SpecError: there is none.
    """
    if not teachers:
        raise SpecError("a soft loss needs a teacher: name a model of the recipe, a list of them or a name -> weight")
    weights = {teachers: 1.0} if isinstance(teachers, str) else teachers
    weights = weights if isinstance(weights, dict) else dict.fromkeys(weights, 1.0)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def log_soft_targets(sources: LossInputs, teachers: Mapping[str, float], temperature: float) -> torch.Tensor:
    """Return ``log sum_k w_k softmax(z_k / T)``, float32 and of the shape of the outputs, without gradient.

    The weighted mean is one of probabilities, as an ensemble's answer is, not one of logits.

    Args:
        sources: with the teachers' logits ``z_k`` (n, ..., classes).
        teachers: name -> its share ``w_k``; the shares sum to 1.
        temperature: T.

    Raises:
        SpecError: a teacher's outputs have another shape than the student's.
    """
    with torch.no_grad():
        parts = [
            torch.log_softmax(_logits(sources, name) / temperature, -1) + math.log(share)
            for name, share in teachers.items()
        ]
        return parts[0] if len(parts) == 1 else torch.logsumexp(torch.stack(parts), 0)


def mean_logits(sources: LossInputs, teachers: Mapping[str, float]) -> torch.Tensor:
    """Return ``sum_k w_k z_k``, in at least float32 and of the shape of the outputs, without gradient.

    Args:
        sources: with the teachers' logits ``z_k`` (n, ..., classes).
        teachers: name -> its share ``w_k``; the shares sum to 1.

    Raises:
        SpecError: a teacher's outputs have another shape than the student's.
    """
    with torch.no_grad():
        return torch.stack([share * _logits(sources, name) for name, share in teachers.items()]).sum(0)


def _logits(sources: LossInputs, name: str) -> torch.Tensor:
    logits = sources.teachers[name]
    if logits.shape != sources.outputs.shape:
        raise SpecError(
            f"teacher {name!r} gave outputs of shape {tuple(logits.shape)}, the student "
            f"{tuple(sources.outputs.shape)}; both must score the same classes at the same positions"
        )
    return at_least_float32(logits)


def valid_positions(sources: LossInputs, shape: tuple[int, ...], ignore_index: int) -> torch.Tensor | None:
    """Return which positions ``shape`` are no padding, bool; None where targets do not say so.

    Whole targets say so whose axes are the first ones of ``shape``: what stands over a position is padding where it is
    ``ignore_index``. A target for each example says so of all positions of that example.
    """
    targets = sources.batch.targets
    if targets is None or targets.is_floating_point() or targets.shape != shape[: targets.dim()]:
        return None
    later = (1,) * (len(shape) - targets.dim())
    return (targets != ignore_index).reshape(targets.shape + later).expand(shape)


def mean_over_valid(losses: torch.Tensor, sources: LossInputs, ignore_index: int) -> torch.Tensor:
    """Return the mean of ``losses`` (n, ...) over the positions that are no padding; 0 where there is none."""
    real = valid_positions(sources, tuple(losses.shape), ignore_index)
    if real is None:
        return losses.mean()
    return losses.masked_fill(~real, 0).sum() / real.sum().clamp(min=1)


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in at least float32: sums over classes are not for bfloat16."""
    return logits if logits.dtype == torch.float64 else logits.float()
