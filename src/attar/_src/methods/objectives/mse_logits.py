"""Mean squared error between the logits of student and teachers."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import (
    TeacherTerm,
    at_least_float32,
    mean_over_valid,
    teacher_logits,
    teacher_shares,
)
from attar._src.work.objective import LossInputs


class MseLogits(TeacherTerm):
    """``|z - z_teacher|^2 / classes``, averaged over positions, on raw logits (not centred, no temperature).

    ``z_teacher`` is the mean of the logits of an ensemble. Ba and Caruana 2014, "Do deep nets really need to be deep?",
    section 2.2, minimise half this distance; Kim et al. 2021, "Comparing Kullback-Leibler divergence and mean squared
    error loss in knowledge distillation", section 3, find it better than ``kl`` on clean labels. For centred logits it
    is twice the limit of ``kl`` for large T; unlike ``kl`` it penalises a constant added to all logits.
    """

    name: Literal["mse_logits"] = "mse_logits"

    def loss(self, sources: LossInputs) -> torch.Tensor:
        shares = teacher_shares(self.teacher)
        with torch.no_grad():
            mean = torch.stack([share * teacher_logits(sources, name) for name, share in shares.items()]).sum(0)
        errors = (at_least_float32(sources.outputs) - mean).square()
        targets = sources.batch.targets
        if targets is None or targets.is_floating_point() or targets.shape != errors.shape:
            axis = sources.layout.settled(errors.shape, sources.target_shape).axis
            errors = errors.mean(-1 if axis is None else axis)
        return mean_over_valid(errors, sources, self.ignore_index)
