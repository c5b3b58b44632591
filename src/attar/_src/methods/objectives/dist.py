"""Relations between a teacher's probabilities instead of the probabilities themselves."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from attar._src.methods.objectives.soft_targets import (
    TeacherTerm,
    Temperature,
    at_least_float32,
    log_soft_targets,
    teacher_shares,
    valid_positions,
)
from attar._src.train.schedule import value_at
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective


class Dist(TeacherTerm):
    """``T^2 (beta (1 - r_inter) + gamma (1 - r_intra))``, r being correlations of student and teacher.

    Probabilities at temperature T as a table, a row for each position of the batch and a column for each class:
    ``r_inter`` is the mean over rows of Pearson's correlation of the student's row with the teacher's, ``r_intra`` the
    mean over columns. A student much weaker than its teacher can keep the order and the relations of what that says
    where it cannot keep the numbers. Huang et al. 2022, "Knowledge distillation from a stronger teacher", equations 8
    to 10, with its factors of 2. ``T^2`` is not in the paper but in its code; correlations do not shrink as T grows, so
    that, unlike the soft losses, this one grows with it.

    The columns are those of one rank's batch. A row or column without any variance correlates with nothing, r = 0, and
    gives no gradient: a last layer of zeros learns nothing from this loss alone. One of tiny probabilities counts like
    any other. The flatter a row or column is, the larger is its gradient.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble: the mean of their probabilities.
        temperature: T, a number or a schedule.
        beta: the factor of the relation between classes.
        gamma: the factor of the relation between examples.
        ignore_index: the target of positions that do not count, where there are targets.
    """

    name: Literal["dist"] = "dist"
    temperature: Temperature = 4.0
    beta: Annotated[float, Field(ge=0)] = 2.0
    gamma: Annotated[float, Field(ge=0)] = 2.0

    def build(self, learner: Learner) -> Objective:
        """Return the loss; it has no parameters."""
        return _Dist(self)


class _Dist(Objective):
    def __init__(self, term: Dist) -> None:
        super().__init__()
        self.term, self.shares = term, teacher_shares(term.teacher)

    def forward(self, sources: LossInputs) -> torch.Tensor:
        term, temperature = self.term, value_at(self.term.temperature, sources.progress)
        teacher = log_soft_targets(sources, self.shares, temperature)
        student = torch.log_softmax(at_least_float32(sources.outputs) / temperature, -1)
        real = valid_positions(sources, tuple(student.shape[:-1]), term.ignore_index)
        if real is None:
            student, teacher = student.flatten(0, -2), teacher.flatten(0, -2)
        else:
            student, teacher = student[real], teacher[real]
        if not len(student):
            return student.sum()  # nothing but padding: 0, with a gradient of 0
        inter, intra = _apart(student, teacher, -1).mean(), _apart(student, teacher, 0).mean()
        return temperature**2 * (term.beta * inter + term.gamma * intra)


def _apart(student: torch.Tensor, teacher: torch.Tensor, axis: int) -> torch.Tensor:
    """Return 1 - r along an axis of logarithms, r being Pearson's correlation of what they are logarithms of.

    r is 0 where one of both has no variance.
    """
    (one, varied), (other, varies) = _unit(student, axis), _unit(teacher, axis)
    # |a - b|^2 / 2 is 1 - a b for vectors of norm 1, and exactly 0 with a gradient of 0 where both agree.
    return torch.where(varied & varies, (one - other).square().sum(axis, keepdim=True) / 2, 1)


def _unit(logs: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the exponentials with mean 0 and norm 1 along an axis, and whether they have any variance there."""
    # A factor changes no correlation. With 1 as the largest, what is tiny throughout keeps its variance in float32.
    largest = logs.detach().amax(axis, keepdim=True).clamp(min=torch.finfo(logs.dtype).min)
    values = (logs - largest).exp()
    centred = values - values.mean(axis, keepdim=True)
    squares = centred.square().sum(axis, keepdim=True)
    varies = squares != 0  # not of a NaN, which has to come out again
    return centred / squares.where(varies, 1).sqrt(), varies
