"""The soft loss as a cross-entropy."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.objectives.soft_targets import SoftTerm


class SoftCrossEntropy(SoftTerm):
    """``-T^2 sum p log softmax(z / T)``, the mean over positions; ``p`` as in ``Kl``.

    Its gradient is that of ``kl``; its value is higher by ``T^2`` times the entropy of the soft targets, so it is not
    0 where student and teacher agree. It is what many papers write (Hinton et al. 2015, section 2).

    Attributes:
        teacher: a model's name; a list of names, or name -> weight, for an ensemble: the mean of their probabilities.
        temperature: T, a number or a schedule.
        ignore_index: the target of positions that do not count, where there are targets.
    """

    name: Literal["soft_cross_entropy"] = "soft_cross_entropy"

    def apart(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy at each position ``(n, ...)`` of log-probabilities ``(n, ..., classes)``."""
        return -(teacher.exp() * student).sum(-1)
