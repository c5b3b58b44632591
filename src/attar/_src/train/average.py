"""Stochastic weight averaging: the mean of parameters over the last steps of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn


class WeightAverage:
    """The mean of parameters over the last ``share * steps`` of all steps: ``m += (p - m) / k`` after the k-th of them.

    SGD explores a wide minimum at the end of training; the mean of its iterates generalises better than the last one
    (Izmailov et al. 2018, "Averaging weights leads to wider optima", section 3.2).
    """

    def __init__(self, parameters: Sequence[Tensor], share: float, steps: int) -> None:
        self.parameters, self.begin = list(parameters), steps - math.ceil(share * steps)
        self.taken, self.means = 0, list[Tensor]()
        self.blend = get_swa_multi_avg_fn()

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Update the means after a step, counted from 0."""
        if step < self.begin:
            return
        if not self.means:
            self.means = [parameter.detach().clone() for parameter in self.parameters]
        else:
            self.blend(self.means, self.parameters, self.taken)
        self.taken += 1

    @torch.no_grad()
    def put(self) -> None:
        """Copy the means, if there are any, into the parameters."""
        for parameter, mean in zip(self.parameters, self.means, strict=False):
            parameter.copy_(mean)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"taken": self.taken, "means": self.means}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.taken = state["taken"]
        self.means = [mean.to(p.device) for mean, p in zip(state["means"], self.parameters, strict=False)]
