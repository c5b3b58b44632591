"""Kullback-Leibler divergence of the student from the teachers' soft targets."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import SoftTerm


class Kl(SoftTerm):
    """``T^2 KL(p || softmax(z / T))``, summed over classes, averaged over positions.

    ``p`` are the teachers' soft targets at temperature T. The factor ``T^2`` keeps the gradient's size independent of
    T: for large T the loss tends to ``|z - z_teacher|^2 / (2 classes)`` with centred logits (Hinton et al. 2015,
    "Distilling the knowledge in a neural network", section 2). It is 0 if student and teacher agree, so its value is
    easier to read than that of ``soft_cross_entropy``.
    """

    name: Literal["kl"] = "kl"

    def apart(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return ``KL(teacher || student)`` at each position."""
        return torch.nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
