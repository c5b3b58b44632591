"""Soft targets of one teacher or an ensemble, and the base of the losses that learn from them."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import AfterValidator, Field

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.stateless import StatelessTerm
from attar._src.train.schedule import Schedule, Scheduled, value_at
from attar._src.work.objective import LossInputs


def _refuse_zero(value: Scheduled) -> Scheduled:
    if isinstance(value, Schedule) and (lowest := min(value.start, value.stop)) <= 0:
        raise ValueError(f"a temperature of {lowest:g} is too low; start and stop must be above 0")
    return value


#: A softmax temperature: a number or a schedule of one, above 0 throughout.
Temperature = Annotated[Annotated[float, Field(gt=0)] | Schedule, AfterValidator(_refuse_zero)]
#: One teacher, several with equal weights, or name -> weight.
Teachers = str | tuple[str, ...] | dict[str, Annotated[float, Field(gt=0)]]
#: Target of positions to ignore, such as padding; None: that of the recipe.
IgnoreIndex = int | None


class TeacherTerm(StatelessTerm):
    """A loss that compares the student's outputs with those of a teacher, or with the mean of an ensemble.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble.
        ignore_index: target of positions to ignore, if there are targets; by default the recipe's.
    """

    teacher: Teachers
    ignore_index: IgnoreIndex = None

    def teachers(self) -> tuple[str, ...]:
        return tuple(teacher_shares(self.teacher))


class SoftTerm(TeacherTerm):
    """``T^2`` times a loss between the probabilities of student and teachers at temperature T.

    Attributes:
        temperature: T, a number or a schedule.
    """

    temperature: Temperature = 4.0

    def loss(self, sources: LossInputs) -> torch.Tensor:
        temperature = value_at(self.temperature, sources.progress)
        student = self.log_probabilities(at_least_float32(sources.outputs), sources, temperature)
        return temperature**2 * self.soft_loss(student, self._log_soft_targets(sources, temperature), sources)

    def log_probabilities(self, logits: torch.Tensor, sources: LossInputs, temperature: float) -> torch.Tensor:
        """Return the log-probabilities of logits at a temperature, ``(N, ..., classes)``."""
        return torch.log_softmax(classes_last(logits, sources, self.name) / temperature, -1)

    def soft_loss(self, student: torch.Tensor, teacher: torch.Tensor, sources: LossInputs) -> torch.Tensor:
        """Return the loss without ``T^2``, a scalar, for log-probabilities ``(N, ..., classes)``."""
        return mean_over_valid(self.position_losses(student, teacher), sources, self.ignore_index)

    def position_losses(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the loss at each position, ``(N, ...)``."""
        raise NotImplementedError

    @torch.no_grad()
    def _log_soft_targets(self, sources: LossInputs, temperature: float) -> torch.Tensor:
        """Return ``log sum_k w_k softmax(z_k / T)``: an ensemble averages probabilities, not logits."""
        parts = [
            self.log_probabilities(teacher_logits(sources, name), sources, temperature) + math.log(share)
            for name, share in teacher_shares(self.teacher).items()
        ]
        return parts[0] if len(parts) == 1 else torch.logsumexp(torch.stack(parts), 0)


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


def teacher_logits(sources: LossInputs, name: str) -> torch.Tensor:
    """Return a teacher's logits, shape of the student's outputs, at least float32.

    Raises:
        SpecError: the teacher's outputs have another shape.
    """
    logits = sources.teachers[name]
    if logits.shape != sources.outputs.shape:
        raise SpecError(
            f"teacher {name!r} gave outputs of shape {tuple(logits.shape)}, the student "
            f"{tuple(sources.outputs.shape)}; both must score the same classes at the same positions"
        )
    return at_least_float32(logits)


def classes_last(logits: torch.Tensor, sources: LossInputs, what: str) -> torch.Tensor:
    """Return logits of the outputs' shape with the class axis last, ``(N, ..., classes)``, for the loss ``what``.

    Raises:
        SpecError: the class axis is not known, or there is one class.
    """
    axis = sources.layout.axis_of(logits.shape, sources.target_shape)
    if logits.shape[axis] == 1:
        raise SpecError(
            f"{what} compares probabilities of classes, and outputs {tuple(logits.shape)} have one class, whose "
            "probability by softmax is always 1; for one output that means yes or no use binary_kl and "
            "binary_cross_entropy"
        )
    return logits.movedim(axis, -1)


def ignored_target(sources: LossInputs, ignore_index: IgnoreIndex) -> int:
    """Return the target to ignore: the term's own, else that of the recipe."""
    return sources.layout.ignore_index if ignore_index is None else ignore_index


def valid_positions(sources: LossInputs, shape: tuple[int, ...], ignore_index: IgnoreIndex) -> torch.Tensor | None:
    """Return the mask of unpadded positions, bool of shape ``shape``; None if the targets do not tell.

    Integer targets whose shape is a prefix of ``shape`` tell: ``ignore_index`` marks padding. Targets ``(N,)`` apply to
    all positions ``(N, H, W)`` of an example.
    """
    targets = sources.batch.targets
    if targets is None or targets.is_floating_point() or targets.shape != shape[: targets.dim()]:
        return None
    later = (1,) * (len(shape) - targets.dim())
    return (targets != ignored_target(sources, ignore_index)).reshape(targets.shape + later).expand(shape)


def mean_over_valid(losses: torch.Tensor, sources: LossInputs, ignore_index: IgnoreIndex) -> torch.Tensor:
    """Return the mean of ``losses``, ``(N, ...)``, over unpadded positions; 0 if all are padding."""
    real = valid_positions(sources, tuple(losses.shape), ignore_index)
    if real is None:
        return losses.mean()
    return losses.masked_fill(~real, 0).sum() / real.sum().clamp(min=1)


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in at least float32, because bfloat16 is too coarse for sums over classes."""
    return logits if logits.dtype == torch.float64 else logits.float()


def kl_divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return ``KL(teacher || student)``, ``(N, ...)``, of log-probabilities ``(N, ..., classes)``."""
    return torch.nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
