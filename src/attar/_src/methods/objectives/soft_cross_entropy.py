"""Cross-entropy with the teachers' soft targets."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import SoftTerm


class SoftCrossEntropy(SoftTerm):
    """``-T^2 sum p log softmax(z / T)``, averaged over positions, with the ``p`` of ``kl``.

    It has the gradient of ``kl``; its value is larger by ``T^2`` times the entropy of the soft targets. Many papers use
    this form (Hinton et al. 2015, section 2).
    """

    name: Literal["soft_cross_entropy"] = "soft_cross_entropy"

    def position_losses(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return -(teacher.exp() * student).sum(-1)
