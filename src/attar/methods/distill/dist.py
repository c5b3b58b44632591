"""Relations between a teacher's probabilities instead of the probabilities themselves."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from attar.methods.distill.soft_targets import Taught, Temperature, log_soft_targets, real_positions, shares, widened
from attar.train.schedule import at
from attar.work.learner import Learner
from attar.work.objective import Objective, Sources


class Dist(Taught):
    """``T^2 (beta (1 - r_inter) + gamma (1 - r_intra))``, r being correlations of student and teacher.

    Probabilities at temperature T as a table, a row for each position of the batch and a column for each class:
    ``r_inter`` is the mean over rows of Pearson's correlation of the student's row with the teacher's, ``r_intra`` the
    mean over columns. A student much weaker than its teacher can keep the order and the relations of what that says
    where it cannot keep the numbers. Huang et al. 2022, "Knowledge distillation from a stronger teacher", equations 8
    to 10, with its factors of 2. ``T^2`` is not in the paper but in its code; correlations do not shrink as T grows, so
    that, unlike the soft losses, this one grows with it.

    The columns are those of one rank's batch. A row or column without any variance correlates with nothing, r = 0.

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
        self.term, self.shares = term, shares(term.teacher)

    def forward(self, sources: Sources) -> torch.Tensor:
        term, temperature = self.term, at(self.term.temperature, sources.progress)
        teacher = log_soft_targets(sources, self.shares, temperature).exp()
        student = torch.softmax(widened(sources.outputs) / temperature, -1)
        real = real_positions(sources, tuple(student.shape[:-1]), term.ignore_index)
        if real is None:
            student, teacher = student.flatten(0, -2), teacher.flatten(0, -2)
        else:
            student, teacher = student[real], teacher[real]
        if not len(student):
            return student.sum()  # nothing but padding: 0, with a gradient of 0
        inter = 1 - _correlation(student, teacher, -1).mean()
        intra = 1 - _correlation(student, teacher, 0).mean()
        return temperature**2 * (term.beta * inter + term.gamma * intra)


def _correlation(one: torch.Tensor, other: torch.Tensor, axis: int) -> torch.Tensor:
    """Return Pearson's correlation along an axis; 0 where one of both has no variance."""
    centred = one - one.mean(axis, keepdim=True), other - other.mean(axis, keepdim=True)
    return torch.nn.functional.cosine_similarity(*centred, dim=axis, eps=1e-8)
