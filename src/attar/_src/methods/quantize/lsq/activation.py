"""Fake quantization of one site's activations, on a grid with learned step and offset."""

from __future__ import annotations

import math

import torch
from torch import nn

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import ModelError
from attar._src.methods.quantize.lsq import function
from attar._src.methods.quantize.ptq.observers.calibration import LeastSquares, spanning_grid
from attar._src.methods.quantize.qat import fake_quantize
from attar._src.model.statistics import Histogram, Range
from attar._src.work.parametrization import Parametrization

_SAMPLED = 1 << 16  # about the number of elements of the first batch in its histogram, evenly spread


class LsqActivation(Parametrization):
    """The activations of a site rounded to an unsigned grid with a learned step and, if they can be negative, a learned
    offset, rounded to the zero point ``Z = clip(round(-offset / step), 0, 2^bits - 1)``.

    Both start at the least squared error over the first batch, of the first source if there are several.

    Attributes:
        step: 0-d; its absolute value is the scale; NaN before the first batch.
        offset: 0-d, between ``-scale (2^bits - 1)`` and 0.
        left_out: how many NaN and infinite elements the first batch had.
        below: 1 if values are negative in the first batch and the offset is learned, else 0.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.top = bits, (1 << bits) - 1
        self.step = nn.Parameter(torch.tensor(torch.nan))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.below = nn.Buffer(torch.tensor(0.0))
        self.left_out = nn.Buffer(torch.tensor(0))

    @property
    def known(self) -> bool:
        """Whether the grid is set."""
        return not bool(self.step.isnan())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid; in evaluation before the first batch, unchanged."""
        if not self.known:
            if not self.training:
                return x
            self.initialize(x.detach())
        features = x.numel() // max(len(x), 1) if x.dim() else 1
        gradient_scale = 1 / math.sqrt(max(features, 1) * self.top)
        return function.lsq_activation(
            x, self.scale(), self.offset * self.below, self.zero_point(), self.top, gradient_scale
        )

    def initialize(self, x: torch.Tensor) -> None:
        """Set step and offset to the grid with the least squared error over finite elements; refuse if none is."""
        *ends, left_out = fake_quantize.activation_extremes(x)
        low, high = map(float, ends)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ModelError(
                f"an activation was not finite in the first batch (between {low} and {high}); check the inputs for "
                "infinities"
            )
        flat = x.reshape(-1)
        if left_out:
            flat = flat[torch.isfinite(flat)]
            self.left_out.fill_(left_out)
        seen = Histogram(Range(low, high))
        seen.add(flat[:: max(1, flat.numel() // _SAMPLED)])
        scale, zero_point = spanning_grid(*LeastSquares().range(seen, self.bits), self.bits)
        with torch.no_grad():
            self.below.fill_(float(low < 0))
            self.step.fill_(scale)
            self.offset.fill_(-scale * zero_point)

    def scale(self) -> torch.Tensor:
        """Return the scale, 0-d, positive."""
        return function.scale_of_step(self.step)

    def zero_point(self) -> int:
        """Return the code of zero, 0 to ``2^bits - 1``."""
        with torch.no_grad():
            return int((-self.offset * self.below / self.scale()).round().clamp(0, self.top))

    def clamp_offset(self) -> None:
        """Move the offset into the range in which zero is on the grid."""
        if not self.known:
            return
        with torch.no_grad():
            self.offset.copy_(torch.maximum(self.offset.clamp(max=0.0), -self.scale() * self.top))

    def warnings(self, value: str) -> tuple[str, ...]:
        return fake_quantize.left_out_warning(value, int(self.left_out), "in the first batch")

    def grid(self, value: str) -> Activation | None:
        if not self.known:
            return None
        with torch.no_grad():
            return Activation(value=value, bits=self.bits, scale=float(self.scale()), zero_point=self.zero_point())
