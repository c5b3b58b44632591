"""The soft loss as a cross-entropy."""

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


class SoftCrossEntropy(Term):
    """``-T^2 sum p log softmax(z / T)``, the mean over positions; ``p`` as in :class:`~attar.methods.distill.kl.Kl`.

    Its gradient is that of ``kl``; its value is higher by ``T^2`` times the entropy of the soft targets, so it is not
    0 where student and teacher agree. It is what many papers write (Hinton et al. 2015, section 2).

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble: the mean of their probabilities.
        temperature: T, a number or a schedule.
        ignore_index: the target of positions that do not count, where there are targets.
    """

    name: Literal["soft_cross_entropy"] = "soft_cross_entropy"
    teacher: Teachers
    temperature: Temperature = 4.0
    ignore_index: int = IGNORE

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models whose outputs it needs."""
        return tuple(shares(self.teacher))

    def build(self, learner: Learner) -> Objective:
        """Return the loss; it has no parameters."""
        return _SoftCrossEntropy(self)


class _SoftCrossEntropy(Objective):
    def __init__(self, term: SoftCrossEntropy) -> None:
        super().__init__()
        self.term, self.shares = term, shares(term.teacher)

    def forward(self, sources: Sources) -> torch.Tensor:
        temperature = at(self.term.temperature, sources.progress)
        targets = log_soft_targets(sources, self.shares, temperature).exp()
        student = torch.log_softmax(widened(sources.outputs) / temperature, -1)
        return temperature**2 * mean_over_positions(-(targets * student).sum(-1), sources, self.term.ignore_index)
