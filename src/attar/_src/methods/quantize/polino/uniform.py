"""The rule ``uniform`` (quantized distillation): weights on evenly spaced points over the range of each bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch

from attar._src.core.errors import SpecError
from attar._src.core.scheme import Granularity, PerBucket, PerChannel
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.field_types import CodeBits, GranularityChoice
from attar._src.methods.quantize.polino.buckets import BucketedWeight, bucket_spans, scale_to_unit
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.parametrization import GridPositions
from attar._src.work.rule import Rule


class Uniform(Rule):
    """Train weights on ``2^bits`` evenly spaced points over the range of each bucket (Polino et al. 2018, "Model
    compression via distillation and quantization", section 2.1).

    With a the range of a bucket, b its smallest value, v = (w - b) / a and s = 2^bits - 1, weights are rounded to

        Q(w) = a q / s + b,    q = floor(v s) + xi

    where xi is 1 if v s - floor(v s) > 1/2 (``nearest``; halves go to even, as everywhere here), or 1 with that
    probability (``stochastic``). At 2 bits, 0.4 in a bucket from 0 to 1 has v s = 1.2, so Q is 1/3. The gradient at
    Q(w) is applied to the full-precision w. With a distillation term this is quantized distillation (section 3,
    Algorithm 1); without training (``quantize`` with ``scales: minmax``) it is the paper's post-mortem quantization.

    ``lsq`` should be preferred: its steps are learned and its grid has a point at zero. This grid usually has none, so
    weights pruned before do not stay zero. The rule ``codebook`` trains the points too.

    Attributes:
        bits: bits of a weight.
        granularity: which weights share a range, as in ``quantize``.
        rounding: ``nearest``; or ``stochastic`` in training, drawn in every step on each rank, while evaluation and the
            file use the nearest point.
        keep: globs of layers or weights left in floating point.
        overrides: glob of layers or weights -> bits; the last match wins.
    """

    name: Literal["uniform"] = "uniform"
    bits: CodeBits = 4
    granularity: GranularityChoice = PerBucket(size=256)
    rounding: Literal["nearest", "stochastic"] = "nearest"
    keep: tuple[str, ...] = ()
    overrides: dict[str, CodeBits] = {}

    def attach(self, learner: Learner) -> Constraint:
        """Return the grids of the selected weights.

        Raises:
            UnknownName: a glob matches no layer.
            SpecError: the granularity does not fit a weight.
        """
        weights = {}
        for name, bits in select_weights(learner, self.bits, self.overrides, keep=self.keep).items():
            granularity = self.granularity or PerChannel(axis=learner.weights[name].axis)
            try:
                weights[name] = UniformWeight(
                    learner.tensor(name), bits, granularity, stochastic=self.rounding == "stochastic"
                )
            except SpecError as error:
                raise SpecError(f"uniform at {name!r}: {error}") from error
        return UniformConstraint(weights)


class UniformWeight(BucketedWeight):
    """A weight rounded to evenly spaced points over the range of each bucket.

    Args:
        weight: gives the shape.
        bits: bits of a code.
        granularity: which elements share a bucket.
        stochastic: round 1.2 up with probability 0.2, in training mode.

    Raises:
        SpecError: the granularity does not fit the shape.
    """

    top: torch.Tensor

    def __init__(self, weight: torch.Tensor, bits: int, granularity: Granularity, *, stochastic: bool = False) -> None:
        super().__init__(weight, granularity)
        self.stochastic = stochastic
        # A tensor, because a GPU divides by a Python number through its reciprocal, with another result.
        self.register_buffer("top", torch.tensor(float((1 << bits) - 1)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid, with a straight-through gradient."""
        rounded: torch.Tensor = ReadThrough.apply(x, self._round)  # type: ignore[no-untyped-call]
        return rounded

    def grid_positions(self, value: torch.Tensor) -> GridPositions:
        """Return the positions of ``value`` in codes; the ranges of the buckets get no gradient."""
        rows = self.rows.of(value)
        spread, low = bucket_spans(rows.detach())
        at, scale = self._at(rows, spread, low), (spread / self.top).expand(rows.shape)
        return GridPositions(self.rows.back(at), self.rows.back(scale), 0, int(self.top))

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return codes and buckets of ``forward(value)`` in evaluation mode."""
        rows = self.rows.of(value.detach())
        codes = self._codes(self._at(rows, *bucket_spans(rows)))
        points = torch.arange(int(self.top) + 1, dtype=torch.float32, device=value.device) / self.top
        return self.stored(value.detach(), codes, points)

    def _round(self, w: torch.Tensor) -> torch.Tensor:
        rows = self.rows.of(w)
        spread, low = bucket_spans(rows)
        at = self._at(rows, spread, low)
        codes = self._random_codes(at) if self.stochastic and self.training else self._codes(at)
        return self.rows.back(codes.div_(self.top).mul_(spread).add_(low))

    def _at(self, rows: torch.Tensor, spread: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        return scale_to_unit(rows, spread, low) * self.top

    def _codes(self, at: torch.Tensor) -> torch.Tensor:
        return at.round().clamp_(max=int(self.top))

    def _random_codes(self, at: torch.Tensor) -> torch.Tensor:
        below = at.floor()
        return below.add_(torch.bernoulli(at - below)).clamp_(max=int(self.top))


class UniformConstraint(Constraint):
    """The grids of a :class:`Uniform`."""

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"


class ReadThrough(torch.autograd.Function):
    """Apply any function to a weight, and pass the gradient unchanged."""

    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        ctx.set_materialize_grads(False)
        return function(w)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        return grads[0] if ctx.needs_input_grad[0] else None, None
