"""The soft loss: how far the student's answer is from its teachers'."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import SoftTerm


class Kl(SoftTerm):
    """``T^2 KL(p || softmax(z / T))``, summed over classes, the mean over the other positions.

    ``p`` are the teachers' soft targets at the same temperature. The factor ``T^2`` keeps the gradient's size when the
    temperature changes: for large T the loss tends to ``|z - z_teacher|^2 / (2 classes)``, both centred (Hinton et al.
    2015, "Distilling the knowledge in a neural network", section 2). It is 0 where student and teacher agree; prefer it
    to ``SoftCrossEntropy`` where the figure itself is read.

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble: the mean of their probabilities.
        temperature: T, a number or a schedule.
        ignore_index: the target of positions that do not count, where there are targets.
    """

    name: Literal["kl"] = "kl"

    def apart(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the divergence at each position ``(n, ...)`` of log-probabilities ``(n, ..., classes)``."""
        return torch.nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
