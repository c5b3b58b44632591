"""The soft loss the other way round: how far the teachers' answer is from the student's."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import SoftTerm


class ReverseKl(SoftTerm):
    """``T^2 KL(softmax(z / T) || p)``, summed over classes, the mean over the other positions.

    ``p`` as in ``Kl``, and the same limit for large T. Where ``kl`` asks the student to
    cover every class its teacher thinks possible, this one asks it to stay where the teacher is sure: what a student
    too small for all of it leaves out are the rare answers (Gu et al. 2024, "MiniLLM: knowledge distillation of large
    language models", section 2.1).

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble: the mean of their probabilities.
        temperature: T, a number or a schedule.
        ignore_index: the target of positions that do not count, where there are targets.
    """

    name: Literal["reverse_kl"] = "reverse_kl"

    def apart(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the divergence at each position ``(n, ...)`` of log-probabilities ``(n, ..., classes)``."""
        return torch.nn.functional.kl_div(teacher, student, reduction="none", log_target=True).sum(-1)
