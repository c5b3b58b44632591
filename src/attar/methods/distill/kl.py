"""The soft loss: how far the student's answer is from its teachers'."""

from __future__ import annotations

from typing import Literal

import torch

from attar.methods.distill.soft_targets import (
    IGNORE,
    Teachers,
    Temperature,
    log_soft_targets,
    mean_over_positions,
    shares,
    widened,
)
from attar.train.schedule import at
from attar.work.learner import Learner
from attar.work.objective import Objective, Sources, Term


class Kl(Term):
    """``T^2 KL(p || softmax(z / T))``, summed over classes, the mean over the other positions.

    ``p`` are the teachers' soft targets at the same temperature. The factor ``T^2`` keeps the gradient's size when the
    temperature changes: for large T the loss tends to ``|z - z_teacher|^2 / (2 classes)``, both centred (Hinton et al.
    2015, "Distilling the knowledge in a neural network", section 2). It is 0 where student and teacher agree; prefer it
    to :class:`~attar.methods.distill.soft_cross_entropy.SoftCrossEntropy` where the figure itself is read.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble: the mean of their probabilities.
        temperature: T, a number or a schedule.
        ignore_index: the target of positions that do not count, where there are targets.
    """

    name: Literal["kl"] = "kl"
    teacher: Teachers
    temperature: Temperature = 4.0
    ignore_index: int = IGNORE

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models whose outputs it needs."""
        return tuple(shares(self.teacher))

    def build(self, learner: Learner) -> Objective:
        """Return the loss; it has no parameters."""
        return _Kl(self)


class _Kl(Objective):
    def __init__(self, term: Kl) -> None:
        super().__init__()
        self.term, self.shares = term, shares(term.teacher)

    def forward(self, sources: Sources) -> torch.Tensor:
        temperature = at(self.term.temperature, sources.progress)
        targets = log_soft_targets(sources, self.shares, temperature)
        student = torch.log_softmax(widened(sources.outputs) / temperature, -1)
        apart = torch.nn.functional.kl_div(student, targets, reduction="none", log_target=True).sum(-1)
        return temperature**2 * mean_over_positions(apart, sources, self.term.ignore_index)
