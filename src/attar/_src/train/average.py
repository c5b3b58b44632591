"""Average: the mean of parameters over the last steps of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn


class WeightAverage:
    """The mean of parameters over the steps since ``begin``: ``m += (p - m) / k`` after the k-th of them.

    The end of a training wanders about in a wide minimum, and the middle of where it was does better on examples it has
    not seen than the last place (Izmailov et al. 2018, "Averaging weights leads to wider optima", section 3.2).

    Args:
        parameters: what is averaged, on their device.
        share: of the steps, at the end; 0: none.
        steps: how many there are.

    Attributes:
        taken: how many steps are in the mean.
        means: the means, one for each parameter; empty before the first step of them.
    """

    def __init__(self, parameters: Sequence[Tensor], share: float, steps: int) -> None:
        self.parameters, self.begin = list(parameters), steps - math.ceil(share * steps)
        self.taken, self.means = 0, list[Tensor]()
        self.blend = get_swa_multi_avg_fn()

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Take in the parameters as they are after step ``step``, counted from 0."""
        if step < self.begin:
            return
        if not self.means:
            self.means = [parameter.detach().clone() for parameter in self.parameters]
        else:
            self.blend(self.means, self.parameters, self.taken)
        self.taken += 1

    @torch.no_grad()
    def put(self) -> None:
        """Let the parameters be their means, if any step is in these."""
        if self.means:
            for parameter, mean in zip(self.parameters, self.means, strict=True):
                parameter.copy_(mean)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold."""
        return {"taken": self.taken, "means": self.means}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        self.taken = state["taken"]
        self.means = [mean.to(p.device) for mean, p in zip(state["means"], self.parameters, strict=False)]
