"""Reverse Kullback-Leibler divergence: of the teachers' soft targets from the student."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import SoftTerm, kl_divergence


class ReverseKl(SoftTerm):
    """``T^2 KL(softmax(z / T) || p)``, averaged over positions, with the ``p`` and the limit for large T of ``kl``.

    ``kl`` makes the student cover every class the teacher thinks possible; this one is mode-seeking: a student with too
    little capacity drops the teacher's rare answers (Gu et al. 2024, "MiniLLM: knowledge distillation of large language
    models", section 2.1).
    """

    name: Literal["reverse_kl"] = "reverse_kl"

    def position_losses(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return kl_divergence(teacher, student)
