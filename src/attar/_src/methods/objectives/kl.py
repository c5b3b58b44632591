"""Kullback-Leibler divergence of the student from the teachers' soft targets."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import SoftTerm, kl_divergence


class Kl(SoftTerm):
    """``T^2 KL(p || softmax(z / T))``, averaged over positions.

    ``p`` are the teachers' soft targets at temperature T. The factor ``T^2`` keeps the gradient's size independent of
    T: for large T the loss tends to ``|z - z_teacher|^2 / (2 classes)`` with centred logits (Hinton et al. 2015,
    "Distilling the knowledge in a neural network", section 2). Unlike ``soft_cross_entropy`` it is 0 if both agree.
    """

    name: Literal["kl"] = "kl"

    def position_losses(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return kl_divergence(student, teacher)
