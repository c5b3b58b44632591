"""One site in training: its range while it is watched, and its values on the grid of that range; below the rule."""

from __future__ import annotations

import math

import torch

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import ModelError
from attar._src.methods.quantize.ptq.calibrate import spanning_grid
from attar._src.methods.quantize.qat import fake_quantize
from attar._src.work.parametrization import Parametrization

#: How far one batch moves the running range.
RANGE_MOMENTUM = 0.05


class ActivationGrid(Parametrization):
    """The values of a site rounded to an unsigned grid with a zero point, as calibration makes it.

    The range is the exponential moving average of each batch's smallest and largest value, over all values of the site.
    A batch is rounded to the grid of those before it; the first is not rounded.

    Args:
        bits: of a value.

    Attributes:
        watching: whether ranges are taken while training.
        range: the running range ``(low, high)``, NaN before anything was seen.
        batch: the range since the last :meth:`advance`; low > high where nothing was seen.
        scale, zero_point: of the grid of ``range``, 0-d; NaN and 0 before there is one.
    """

    range: torch.Tensor
    batch: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.watching = bits, True
        self.register_buffer("range", torch.full((2,), torch.nan))
        self.register_buffer("batch", torch.tensor([torch.inf, -torch.inf]))
        self.register_buffer("scale", torch.tensor(torch.nan))
        self.register_buffer("zero_point", torch.tensor(0.0))

    @property
    def known(self) -> bool:
        """Whether there is a grid."""
        return not bool(self.scale.isnan())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid, as it is while there is none; the gradient passes within the grid's range."""
        if self.training and self.watching:
            low, high = fake_quantize.activation_extremes(x)
            self.batch.copy_(torch.stack([torch.minimum(self.batch[0], low), torch.maximum(self.batch[1], high)]))
        return (
            fake_quantize.fake_quantize_activation(x, self.scale, self.zero_point, 0, (1 << self.bits) - 1)
            if self.known
            else x
        )

    def advance(self) -> None:
        """Take in what was seen since the last time.

        Raises:
            ModelError: a NaN or an infinity passed.
        """
        seen = self.batch.tolist()
        if seen == [math.inf, -math.inf]:
            return
        if not all(map(math.isfinite, seen)):
            raise ModelError(
                f"an activation was not finite in training (between {seen[0]} and {seen[1]}); lower optimizer.lr, and "
                "look for infinities in the inputs"
            )
        self.put(self.range.lerp(self.batch, RANGE_MOMENTUM) if self.known else self.batch)
        self.batch.copy_(torch.tensor([math.inf, -math.inf]))

    def put(self, found: torch.Tensor) -> None:
        """Set the range ``(low, high)``, and the grid that spans it."""
        self.range.copy_(found)
        low, high = self.range.tolist()
        if not math.isnan(low):
            scale, zero_point = spanning_grid(low, high, self.bits)
            self.scale.fill_(scale)
            self.zero_point.fill_(zero_point)

    def grid(self, value: str) -> Activation | None:
        """Return the grid of the values called ``value`` in the deployed graph, None where nothing was ever seen."""
        if not self.known:
            return None
        return Activation(value=value, bits=self.bits, scale=float(self.scale), zero_point=int(self.zero_point))
