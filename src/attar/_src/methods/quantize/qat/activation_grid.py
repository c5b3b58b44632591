"""Fake quantization of one site's activations, on the grid of their running range."""

from __future__ import annotations

import math

import torch
from torch import nn

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import ModelError
from attar._src.methods.quantize.ptq.observers.calibration import spanning_grid
from attar._src.methods.quantize.qat.fake_quantize import (
    activation_extremes,
    fake_quantize_activation,
    left_out_warning,
)
from attar._src.work.parametrization import Parametrization

RANGE_MOMENTUM = 0.05  # weight of a batch in the running range


class ActivationGrid(Parametrization):
    """The activations of a site rounded to an unsigned grid with a zero point, as in calibration.

    The range is an exponential moving average of the batches' minima and maxima over all sources of the site. A batch
    is rounded to the grid of the batches before it; the first batch is not rounded.

    Attributes:
        watching: whether training updates the range.
        range: running range ``(low, high)``, NaN before the first batch.
        batch: range since the last :meth:`advance`, ``(inf, -inf)`` without values.
        scale, zero_point: grid that spans ``range``, 0-d.
        left_out: how many NaN and infinite elements the ranges left out.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.watching = bits, True
        self.range = nn.Buffer(torch.full((2,), torch.nan))
        self.batch = nn.Buffer(torch.tensor([torch.inf, -torch.inf]))
        self.scale = nn.Buffer(torch.tensor(torch.nan))
        self.zero_point = nn.Buffer(torch.tensor(0.0))
        self.left_out = nn.Buffer(torch.tensor(0))

    @property
    def known(self) -> bool:
        """Whether the grid is set."""
        return not bool(self.scale.isnan())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid, unchanged before one is set; the gradient passes where ``x`` is in range."""
        if self.training and self.watching:
            low, high, left_out = activation_extremes(x)
            self.left_out.add_(left_out)
            self.batch.copy_(torch.stack([torch.minimum(self.batch[0], low), torch.maximum(self.batch[1], high)]))
        if not self.known:
            return x
        return fake_quantize_activation(x, self.scale, self.zero_point, 0, (1 << self.bits) - 1)

    def advance(self) -> None:
        """Update the running range with the values since the last call; refuse them if none was finite."""
        seen = self.batch.tolist()
        if seen == [math.inf, -math.inf]:
            return
        if not all(map(math.isfinite, seen)):
            raise ModelError(
                f"an activation was not finite in training (between {seen[0]} and {seen[1]}); lower optimizer.lr, and "
                "check the inputs for infinities"
            )
        self.put(self.range.lerp(self.batch, RANGE_MOMENTUM) if self.known else self.batch)
        self.batch.copy_(torch.tensor([math.inf, -math.inf]))

    def put(self, span: torch.Tensor) -> None:
        """Set the range ``(low, high)`` and the grid that spans it."""
        self.range.copy_(span)
        low, high = self.range.tolist()
        if not math.isnan(low):
            scale, zero_point = spanning_grid(low, high, self.bits)
            self.scale.fill_(scale)
            self.zero_point.fill_(zero_point)

    def warnings(self, value: str) -> tuple[str, ...]:
        return left_out_warning(value, int(self.left_out), "in training")

    def grid(self, value: str) -> Activation | None:
        if not self.known:
            return None
        return Activation(value=value, bits=self.bits, scale=float(self.scale), zero_point=int(self.zero_point))
