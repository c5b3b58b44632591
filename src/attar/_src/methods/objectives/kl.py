"""Kullback-Leibler divergence of the student from the teachers' soft targets, and the reverse."""

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


class ReverseKl(SoftTerm):
    """``T^2 KL(softmax(z / T) || p)``, averaged over positions, with the ``p`` and the limit for large T of ``kl``.

    ``kl`` makes the student cover every class the teacher thinks possible; this one is mode-seeking: a student with too
    little capacity drops the teacher's rare answers (Gu et al. 2024, "MiniLLM: knowledge distillation of large language
    models", section 2.1).
    """

    name: Literal["reverse_kl"] = "reverse_kl"

    def position_losses(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return kl_divergence(teacher, student)
