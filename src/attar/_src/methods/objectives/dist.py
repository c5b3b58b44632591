"""DIST: match correlations of student and teacher probabilities instead of the probabilities."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from attar._src.methods.objectives.soft_targets import SoftTerm, valid_positions
from attar._src.work.objective import LossInputs


class Dist(SoftTerm):
    """``T^2 (beta (1 - r_inter) + gamma (1 - r_intra))``, r being Pearson correlations of student and teacher.

    Arrange probabilities at temperature T as ``(positions, classes)``: ``r_inter`` is the mean correlation of rows,
    ``r_intra`` of columns. A student much weaker than its teacher can match the order and relations of probabilities
    even if it cannot match their values. Huang et al. 2022, "Knowledge distillation from a stronger teacher", equations
    8 to 10, with its factors of 2. ``T^2`` is in the paper's code but not in the paper; unlike the soft losses, this
    one grows with T, because correlations do not shrink.

    Columns cover one rank's batch. A row or column without variance has r = 0 and no gradient: a last layer of zeros
    learns nothing from this loss alone. Rows and columns of tiny probabilities count like any other; the flatter one
    is, the larger its gradient.

    Attributes:
        beta, gamma: factors of the relation between classes and of that between examples.
    """

    name: Literal["dist"] = "dist"
    beta: Annotated[float, Field(ge=0)] = 2.0
    gamma: Annotated[float, Field(ge=0)] = 2.0

    def soft_loss(self, student: torch.Tensor, teacher: torch.Tensor, sources: LossInputs) -> torch.Tensor:
        real = valid_positions(sources, tuple(student.shape[:-1]), self.ignore_index)
        if real is None:
            student, teacher = student.flatten(0, -2), teacher.flatten(0, -2)
        else:
            student, teacher = student[real], teacher[real]
        if not len(student):
            return student.sum()  # padding alone: 0, with a gradient of 0
        inter, intra = (_uncorrelated(student, teacher, axis).mean() for axis in (-1, 0))
        return self.beta * inter + self.gamma * intra


def _uncorrelated(student: torch.Tensor, teacher: torch.Tensor, axis: int) -> torch.Tensor:
    """Return ``1 - r``, r the Pearson correlation of the exponentials along an axis; r = 0 if one has no variance."""
    (one, varied), (other, varies) = _unit(student, axis), _unit(teacher, axis)
    # For unit vectors |a - b|^2 / 2 = 1 - a b, and it is exactly 0 with a gradient of 0 if both agree.
    return torch.where(varied & varies, (one - other).square().sum(axis, keepdim=True) / 2, 1)


def _unit(logs: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``exp(logs)`` with mean 0 and norm 1 along an axis, and whether it has any variance there."""
    # Correlations are invariant to scale: with a maximum of 1, tiny values keep their variance in float32.
    largest = logs.detach().amax(axis, keepdim=True).clamp(min=torch.finfo(logs.dtype).min)
    values = (logs - largest).exp()
    centred = values - values.mean(axis, keepdim=True)
    squares = centred.square().sum(axis, keepdim=True)
    varies = squares != 0  # True for NaN, which must propagate
    return centred / squares.where(varies, 1).sqrt(), varies
