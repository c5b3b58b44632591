"""The rule of quantized distillation: weights on evenly spaced points between the ends of each bucket."""

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
    """Weights are read on ``2^bits`` evenly spaced points from the least to the greatest of their bucket (Polino et al.
    2018, "Model compression via distillation and quantization", section 2.1).

    With a the range of a bucket, b its least value, v = (w - b) / a and s = 2^bits - 1, what is read is

        Q(w) = a q / s + b,    q = floor(v s) + xi

    where xi is 1 if v s - floor(v s) > 1/2 (``nearest``; halves go to even, as everywhere here), or 1 with that
    probability (``stochastic``). The loss sees Q(w); its gradient at Q(w) steps the full-precision w: with a term of
    distillation this is quantized distillation, their Algorithm 1 (section 3). Without training it is their
    post-mortem quantization: the stage ``quantize`` with ``scales: minmax``.

    Prefer ``lsq``: its steps are learned, and its grid has a point at zero. This one has none as a rule, so that what
    ``prune`` set to zero does not stay there. Not to be confused with ``codebook``, which learns where the points lie.

    Attributes:
        bits: bits of a weight.
        granularity: which weights share a range, as in ``quantize``.
        rounding: ``nearest``, or ``stochastic`` while training: drawn anew in every step, and by each rank for itself;
            evaluation and the file have the nearest.
        keep: globs of layers or weights left in floating point.
        overrides: glob of layers or weights -> bits; of several that match, the last holds.
    """

    name: Literal["uniform"] = "uniform"
    bits: CodeBits = 4
    granularity: GranularityChoice = PerBucket(size=256)
    rounding: Literal["nearest", "stochastic"] = "nearest"
    keep: tuple[str, ...] = ()
    overrides: dict[str, CodeBits] = {}

    def attach(self, learner: Learner) -> Constraint:
        """Return the grids of the weights that are chosen.

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
    """A weight rounded between the ends of each bucket.

    Args:
        weight: the weight, for its shape.
        bits: of a code.
        granularity: which elements share a bucket.
        stochastic: round up with the probability of what is left over, in training mode.

    Raises:
        SpecError: the granularity does not fit the shape.
    """

    top: torch.Tensor

    def __init__(self, weight: torch.Tensor, bits: int, granularity: Granularity, *, stochastic: bool = False) -> None:
        super().__init__(weight, granularity)
        self.stochastic = stochastic
        # A tensor: an accelerator divides by a number of Python through its reciprocal, which is another result.
        self.register_buffer("top", torch.tensor(float((1 << bits) - 1)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid; its gradient is that of what is returned."""
        read: torch.Tensor = ReadThrough.apply(x, self._read)  # type: ignore[no-untyped-call]
        return read

    def grid_positions(self, value: torch.Tensor) -> GridPositions:
        """Return where ``value`` lies between the codes; the ends of the buckets get no gradient."""
        rows = self.rows.of(value)
        spread, low = bucket_spans(rows.detach())
        at, scale = self._at(rows, spread, low), (spread / self.top).expand(rows.shape)
        return GridPositions(self.rows.back(at), self.rows.back(scale), 0, int(self.top))

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return the codes and buckets of what ``forward`` returns in evaluation."""
        rows = self.rows.of(value.detach())
        codes = self._codes(self._at(rows, *bucket_spans(rows)))
        points = torch.arange(int(self.top) + 1, dtype=torch.float32, device=value.device) / self.top
        return self.stored(value.detach(), codes, points)

    def _read(self, w: torch.Tensor) -> torch.Tensor:
        rows = self.rows.of(w)
        spread, low = bucket_spans(rows)
        at = self._at(rows, spread, low)
        codes = self._drawn(at) if self.stochastic and self.training else self._codes(at)
        return self.rows.back(codes.div_(self.top).mul_(spread).add_(low))

    def _at(self, rows: torch.Tensor, spread: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        return scale_to_unit(rows, spread, low) * self.top

    def _codes(self, at: torch.Tensor) -> torch.Tensor:
        return at.round().clamp_(max=int(self.top))

    def _drawn(self, at: torch.Tensor) -> torch.Tensor:
        below = at.floor()
        return below.add_(torch.bernoulli(at - below)).clamp_(max=int(self.top))


class UniformConstraint(Constraint):
    """The grids of a :class:`Uniform`."""

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"


class ReadThrough(torch.autograd.Function):
    """Reads a weight as a function has it, and passes the gradient as it is."""

    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, read: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return ``read(w)``."""
        ctx.set_materialize_grads(False)
        return read(w)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        """Return the gradient of ``w``: that of the output."""
        return grads[0] if ctx.needs_input_grad[0] else None, None
