"""Mean squared error to the teachers' logits."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import (
    TeacherTerm,
    at_least_float32,
    mean_logits,
    mean_over_valid,
    teacher_shares,
)
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective


class MseLogits(TeacherTerm):
    """``|z - z_teacher|^2 / classes``, averaged over positions, on raw logits (not centred, no temperature).

    Ba and Caruana 2014, "Do deep nets really need to be deep?", section 2.2, minimise half this distance to the (mean)
    logits of their teachers; Kim et al. 2021, "Comparing Kullback-Leibler divergence and mean squared error loss in
    knowledge distillation", section 3, find it better than ``kl`` on clean labels. For centred logits it is twice the
    limit of ``kl`` for large T; unlike ``kl`` it penalises a constant added to all logits.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble: the mean of their logits.
        ignore_index: target of positions to ignore.
    """

    name: Literal["mse_logits"] = "mse_logits"

    def build(self, learner: Learner) -> Objective:
        """Return the loss, which has no parameters."""
        return _MseLogits(self)


class _MseLogits(Objective):
    def __init__(self, term: MseLogits) -> None:
        super().__init__()
        self.term, self.shares = term, teacher_shares(term.teacher)

    def forward(self, sources: LossInputs) -> torch.Tensor:
        apart = at_least_float32(sources.outputs) - mean_logits(sources, self.shares)
        return mean_over_valid(apart.square().mean(-1), sources, self.term.ignore_index)
