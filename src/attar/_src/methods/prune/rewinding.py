"""Rewinding: parameters go back to what they were early in a training, while masks stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from attar._src.work.weight_view import WeightView


class Rewinding(nn.Module):
    """Copies of parameters at one moment of a stage.

    Attributes:
        at: share of the stage.
        names: of the parameters, in the order of the buffers.
    """

    kept: torch.Tensor  # 0-d bool, whether they were copied yet

    def __init__(self, at: float, parameters: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.at, self.names = at, tuple(parameters)
        self.register_buffer("kept", torch.tensor(False))
        for place, value in enumerate(parameters.values()):
            self.register_buffer(f"value{place}", value.detach().clone())

    def keep(self, progress: float, weights: WeightView) -> None:
        """Copy the parameters when their moment comes."""
        if not self.kept and progress >= self.at:
            self.kept.fill_(True)
            for place, name in enumerate(self.names):
                getattr(self, f"value{place}").copy_(weights.value(name))

    def go_back(self, weights: WeightView) -> None:
        """Give the parameters their values of that moment; nothing before it."""
        for place, name in enumerate(self.names) if self.kept else ():
            weights.value(name).copy_(getattr(self, f"value{place}"))
