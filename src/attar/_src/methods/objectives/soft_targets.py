"""Soft targets of one teacher or an ensemble, and the base of the losses that learn from them."""

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
    # A schedule stays between its ends.
    if isinstance(value, Schedule) and min(value.start, value.stop) <= 0:
        raise ValueError(
            f"a temperature of {min(value.start, value.stop):g} is too low; start and stop must be above 0"
        )
    return value


#: A softmax temperature: a number or a schedule of one, above 0 throughout.
Temperature = Annotated[Annotated[float, Field(gt=0)] | Schedule, AfterValidator(_stays_warm)]
#: One teacher, several with equal weights, or name -> weight.
Teachers = str | tuple[str, ...] | dict[str, Annotated[float, Field(gt=0)]]
#: Target of padding, as in torch.nn.CrossEntropyLoss.
IGNORE_INDEX = -100


class TeacherTerm(Term):
    """A loss that compares the student's outputs with those of teachers.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble.
        ignore_index: target of positions to ignore, if there are targets.
    """

    teacher: Teachers
    ignore_index: int = IGNORE_INDEX

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the teachers."""
        return tuple(teacher_shares(self.teacher))


class SoftTerm(TeacherTerm):
    """``T^2`` times a divergence of student and teachers at temperature T, averaged over positions.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble: the mean of their probabilities.
        temperature: T, a number or a schedule.
        ignore_index: target of positions to ignore, if there are targets.
    """

    temperature: Temperature = 4.0

    def apart(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the divergence at each position ``(N, ...)`` of log-probabilities ``(N, ..., classes)``."""
        raise NotImplementedError

    def build(self, learner: Learner) -> Objective:
        """Return the loss, which has no parameters."""
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
        SpecError: there is no teacher.

    Example:
        >>> teacher_shares({"a": 3.0, "b": 1.0})
        {'a': 0.75, 'b': 0.25}
    """
    if not teachers:
        raise SpecError("a soft loss needs a teacher: name a model of the recipe, a list of models, or name -> weight")
    weights = {teachers: 1.0} if isinstance(teachers, str) else teachers
    weights = weights if isinstance(weights, dict) else dict.fromkeys(weights, 1.0)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def log_soft_targets(sources: LossInputs, teachers: Mapping[str, float], temperature: float) -> torch.Tensor:
    """Return ``log sum_k w_k softmax(z_k / T)``, shape of the outputs, at least float32, without gradient.

    The ensemble averages probabilities, not logits.

    Args:
        sources: with the teachers' logits ``z_k``, ``(N, ..., classes)``.
        teachers: name -> share ``w_k``; the shares sum to 1.
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
    """Return ``sum_k w_k z_k``, shape of the outputs, at least float32, without gradient.

    Args:
        sources: with the teachers' logits ``z_k``, ``(N, ..., classes)``.
        teachers: name -> share ``w_k``; the shares sum to 1.

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
    """Return the mask of unpadded positions, bool of shape ``shape``; None if the targets do not tell.

    Integer targets whose shape is a prefix of ``shape`` tell: ``ignore_index`` marks padding. Targets ``(N,)`` apply to
    all positions ``(N, H, W)`` of an example.
    """
    targets = sources.batch.targets
    if targets is None or targets.is_floating_point() or targets.shape != shape[: targets.dim()]:
        return None
    later = (1,) * (len(shape) - targets.dim())
    return (targets != ignore_index).reshape(targets.shape + later).expand(shape)


def mean_over_valid(losses: torch.Tensor, sources: LossInputs, ignore_index: int) -> torch.Tensor:
    """Return the mean of ``losses``, ``(N, ...)``, over unpadded positions; 0 if all are padding."""
    real = valid_positions(sources, tuple(losses.shape), ignore_index)
    if real is None:
        return losses.mean()
    return losses.masked_fill(~real, 0).sum() / real.sum().clamp(min=1)


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in at least float32, because bfloat16 is too coarse for sums over classes."""
    return logits if logits.dtype == torch.float64 else logits.float()
