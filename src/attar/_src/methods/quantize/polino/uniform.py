"""The rule ``uniform`` (quantized distillation): weights on evenly spaced points over the range of each bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from attar._src.core.errors import prefixed_errors
from attar._src.core.scheme import Granularity, PerBucket
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.field_types import CodeBits, GranularityChoice
from attar._src.methods.quantize.grid_constraint import GridConstraint
from attar._src.methods.quantize.polino.buckets import BucketedWeight
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.parametrization import GridPositions
from attar._src.work.rule import Rule


class Uniform(Rule):
    """Train weights on ``2^bits`` evenly spaced points over the range of each bucket (Polino et al. 2018, "Model
    compression via distillation and quantization", section 2.1).

    With a the range of a bucket, b its smallest value, v = (w - b) / a and s = 2^bits - 1, weights are rounded to

        Q(w) = a q / s + b,    q = floor(v s) + xi

    where xi is 1 if v s - floor(v s) > 1/2 (``nearest``; halves go to even), or 1 with that probability
    (``stochastic``). At 2 bits, 0.4 in a bucket from 0 to 1 has v s = 1.2, so Q is 1/3. The gradient at Q(w) is applied
    to the full-precision w. With a distillation term this is quantized distillation (section 3, Algorithm 1).

    ``lsq`` should be preferred: its steps are learned and its grid has a point at zero. This grid usually has none, so
    weights pruned before do not stay zero.

    Attributes:
        bits: bits of a weight.
        granularity, keep, overrides: as in ``quantize``.
        rounding: ``nearest``; or ``stochastic`` in training, drawn in every step on each rank, while evaluation and the
            file use the nearest point.
    """

    name: Literal["uniform"] = "uniform"
    bits: CodeBits = 4
    granularity: GranularityChoice = PerBucket(size=256)
    rounding: Literal["nearest", "stochastic"] = "nearest"
    keep: tuple[str, ...] = ()
    overrides: dict[str, CodeBits] = {}

    def attach(self, learner: Learner) -> Constraint:
        weights, stochastic = {}, self.rounding == "stochastic"
        for name, bits in select_weights(learner, self.bits, self.overrides, keep=self.keep).items():
            granularity = self.granularity or learner.weights[name].channels
            with prefixed_errors(f"uniform at {name!r}"):
                weights[name] = UniformWeight(learner.tensor(name), bits, granularity, stochastic=stochastic)
        return GridConstraint(weights)


class UniformWeight(BucketedWeight):
    """A weight rounded to evenly spaced points over the range of each bucket, with a straight-through gradient.

    If ``stochastic``, position 1.2 is rounded up with probability 0.2 in training mode.
    """

    def __init__(self, weight: torch.Tensor, bits: int, granularity: Granularity, *, stochastic: bool = False) -> None:
        super().__init__(weight, granularity)
        self.stochastic = stochastic
        # A tensor, because a GPU divides by a Python number through its reciprocal, with another result.
        self.top = nn.Buffer(torch.tensor(float((1 << bits) - 1)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return straight_through(x, self._round)

    def grid_positions(self, value: torch.Tensor) -> GridPositions:
        at, spread, _ = self.rows.unit(value)
        scale = (spread / self.top).expand(at.shape)
        return GridPositions(self.rows.back(at * self.top), self.rows.back(scale), 0, int(self.top), spans=True)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        value, top = value.detach(), int(self.top)
        codes = (self.rows.unit(value)[0] * self.top).round().clamp_(max=top)
        return self.stored(value, codes, torch.arange(top + 1, dtype=torch.float32, device=value.device) / self.top)

    def _round(self, w: torch.Tensor) -> torch.Tensor:
        unit, spread, low = self.rows.unit(w)
        at = unit * self.top
        codes = at.round()
        if self.stochastic and self.training:
            codes = at.floor()
            codes += torch.bernoulli(at - codes)
        return self.rows.back(codes.clamp_(max=int(self.top)).div_(self.top).mul_(spread).add_(low))


def straight_through(w: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return ``function(w)``, whose gradient passes to ``w`` unchanged."""
    out: torch.Tensor = _StraightThrough.apply(w, function)  # type: ignore[no-untyped-call]
    return out


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, read: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return ``read(w)``."""
        ctx.set_materialize_grads(False)
        return read(w)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        """Return the gradient of ``w``: that of the output."""
        return grads[0] if ctx.needs_input_grad[0] else None, None
