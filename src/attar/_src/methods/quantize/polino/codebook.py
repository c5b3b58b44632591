"""The rule ``codebook`` (differentiable quantization): the points that weights are rounded to are trained."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from attar._src.core.errors import prefixed_errors
from attar._src.core.scheme import Granularity, PerBucket
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.field_types import CodeBits, GranularityChoice
from attar._src.methods.quantize.grid_constraint import GridConstraint
from attar._src.methods.quantize.polino.buckets import BucketedWeight, BucketRows
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView

Start = Literal["percentile", "uniform"]

LEAST_POINTS, MOST_POINTS = 2, 256


class LearnedCodebook(Rule):
    """Train a codebook of points for every weight tensor (Polino et al. 2018, "Model compression via distillation and
    quantization", section 4, Algorithm 2: differentiable quantization).

    With a the range of a bucket, b its smallest value and v = (w - b) / a, a weight is rounded to w_q = a p + b, where
    p is the point nearest to v. The gradient of a point is

        dL/dp_j = sum of a_i dL/dw_q,i over the elements i rounded to point j

    Points start within [0, 1]. A point without weights gets no gradient. If two points cross, the parameter is not
    sorted, so that each keeps its momentum; codes refer to the sorted points.

    ``weights: frozen`` is the paper's method: points are trained and weights are not. Biases and batch-norms are
    trained here, while the authors' program quantizes them and trains the points only. ``trained`` goes beyond the
    paper: it trains weights too, with a straight-through gradient.

    ``share: gradient`` distributes points over tensors by the norms of their gradients (section 4; there over a few
    batches before training). Norms of dL/dw_q are averaged over the first epoch, with ``2^bits`` points per tensor.
    Then, as in the authors' program, each tensor keeps half of its points, and the others are distributed in proportion
    to the norms, with 2 to 256 points each. A tensor whose number changes starts with new points.

    The sum makes the gradients of points large, so the paper's learning rates for them are small, about 1e-5;
    ``lr_scale`` separates them from those of other parameters. Below 4 bits ``lsq`` or ``uniform`` should be preferred.
    Zero is usually no point, so weights pruned before do not stay zero.

    Attributes:
        bits: 2^bits is the number of points of a tensor, or its mean over the tensors.
        granularity, keep, overrides: as in ``quantize``.
        start: initial points: percentiles of v, or evenly spaced.
        share: ``equal`` numbers of points, or more for tensors with a larger ``gradient``.
        weights: whether the weights are ``frozen`` or ``trained``.
        lr_scale: factor of the points' gradient; with ``sgd`` that of their learning rate.
    """

    name: Literal["codebook"] = "codebook"
    bits: CodeBits = 4
    granularity: GranularityChoice = PerBucket(size=256)
    start: Start = "percentile"
    share: Literal["equal", "gradient"] = "equal"
    weights: Literal["frozen", "trained"] = "frozen"
    lr_scale: Annotated[float, Field(gt=0)] = 1.0
    keep: tuple[str, ...] = ()
    overrides: dict[str, CodeBits] = {}

    def attach(self, learner: Learner) -> Constraint:
        weights = {}
        for name, bits in select_weights(learner, self.bits, self.overrides, keep=self.keep).items():
            granularity = self.granularity or learner.weights[name].channels
            room = MOST_POINTS if self.share == "gradient" else 1 << bits
            with prefixed_errors(f"codebook at {name!r}"):
                codebook = CodebookWeight(learner.tensor(name), 1 << bits, granularity, room=room, start=self.start)
            codebook.frozen, codebook.lr_scale = self.weights == "frozen", self.lr_scale
            weights[name] = codebook
        return CodebookConstraint(weights, deals=self.share == "gradient")


class CodebookWeight(BucketedWeight):
    """A weight rounded to the nearest point of a trained codebook.

    Args:
        weight: points are initialized from it.
        count: number of points, at most ``room``.

    Attributes:
        points: float32 ``(room,)``; the first ``count`` are used, in any order.
        wanted: number of points from the next :meth:`resize` on.
        norm: sum over steps of the norm of dL/dw_q, while ``watching``.
    """

    def __init__(
        self, weight: torch.Tensor, count: int, granularity: Granularity, *, room: int, start: Start = "percentile"
    ) -> None:
        super().__init__(weight, granularity)
        self.start, self.frozen, self.lr_scale, self.watching = start, True, 1.0, False
        self.points = nn.Parameter(torch.zeros(room))
        self.count = nn.Buffer(torch.tensor(0))
        self.wanted = nn.Buffer(torch.tensor(count))
        self.norm = nn.Buffer(torch.tensor(0.0))
        self.resize(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach() if self.frozen else x
        rounded: torch.Tensor = _Nearest.apply(x, self.active(), self.rows, self.lr_scale)  # type: ignore[no-untyped-call]
        if self.training and self.watching and rounded.requires_grad:
            rounded.register_hook(self._add_norm)
        return rounded

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        value, points = value.detach(), self.active().detach()
        return self.stored(value, _nearest(self.rows.unit(value)[0], points), points)

    def active(self) -> torch.Tensor:
        """Return the points in use, ``(count,)``, sorted, with gradient to ``points``."""
        return self.points[: int(self.count)].sort(stable=True).values

    def resize(self, weight: torch.Tensor) -> None:
        """Change to ``wanted`` points, initialized again; does nothing if their number is the same."""
        count = int(self.wanted)
        if count == int(self.count):
            return
        points = np.linspace(0, 1, count)
        if self.start == "percentile" and weight.numel():
            unit, _, _ = self.rows.unit(weight.detach())
            points = np.quantile(self.rows.back(unit).cpu().numpy(), points)
        with torch.no_grad():
            self.points.zero_()[:count] = torch.from_numpy(points.astype(np.float32))
            self.count.fill_(count)

    def _add_norm(self, grad: torch.Tensor) -> None:
        self.norm.add_(grad.detach().norm())


class CodebookConstraint(GridConstraint):
    """The codebooks of a :class:`LearnedCodebook`; if ``deals``, points are redistributed after the first epoch."""

    def __init__(self, weights: Mapping[str, CodebookWeight], *, deals: bool) -> None:
        super().__init__(weights)
        self.codebooks = weights
        # 0: norms are summed; 1: numbers of points are known; 2: codebooks are resized.
        self.dealt = nn.Buffer(torch.tensor(0 if deals else 2))

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Resize the codebooks once after the first epoch."""
        stage = int(self.dealt)
        for name, codebook in self.codebooks.items():
            codebook.watching = stage == 0
            if stage == 1:
                codebook.resize(weights.value(name))
        if stage == 1:
            self.dealt.fill_(2)

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """At the end of the first epoch, distribute points by the norms, averaged over the ranks."""
        if int(self.dealt) == 2:
            return
        codebooks = list(self.codebooks.values())
        for each in codebooks:
            each.norm.copy_(mean(each.norm))
        counts = deal_points([float(each.norm) for each in codebooks], [int(each.count) for each in codebooks])
        for each, count in zip(codebooks, counts, strict=True):
            each.wanted.fill_(count)
        self.dealt.fill_(1)

    def finalize(self, weights: WeightView) -> None:
        """End the redistribution, so that a later stage keeps the points trained in this one."""
        for codebook in self.codebooks.values():
            codebook.wanted.copy_(codebook.count)
            codebook.watching = False
        self.dealt.fill_(2)


def deal_points(norms: Sequence[float], counts: Sequence[int]) -> list[int]:
    """Return the number of points of each tensor: half of its points, and a share of the others by its norm.

    The others are distributed by Webster's method, one by one to the largest ``norm / (dealt + 1/2)``; of equals to the
    one with fewer, then the first. All numbers of points are 2 to 256.

    Example:
        >>> deal_points([3.0, 1.0], [8, 8])
        [10, 6]
    """
    points = [max(LEAST_POINTS, count // 2) for count in counts]
    heap = [(-2 * norm, 0, index) for index, norm in enumerate(norms) if points[index] < MOST_POINTS]
    heapq.heapify(heap)
    for _ in range(sum(counts) - sum(points)):
        _, dealt, index = heapq.heappop(heap)
        points[index] += 1
        if points[index] < MOST_POINTS:
            heapq.heappush(heap, (-norms[index] / (dealt + 1.5), dealt + 1, index))
    return points


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, points: torch.Tensor, rows: BucketRows, lr_scale: float) -> torch.Tensor:
        unit, spread, low = rows.unit(w)
        codes = _nearest(unit, points)
        ctx.save_for_backward(codes, spread)
        ctx.rows, ctx.levels, ctx.lr_scale = rows, len(points), lr_scale
        # index_select is far faster than points[codes].
        read = points.index_select(0, codes.reshape(-1)).reshape(codes.shape)
        return rows.back(read.mul_(spread).add_(low))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None, None]:
        codes, spread = ctx.saved_tensors
        # In float64, because a point sums over many weights.
        part = (ctx.rows.of(grads[0], fill=0.0) * spread).double().reshape(-1)
        sums = part.new_zeros(ctx.levels).index_add_(0, codes.reshape(-1), part)
        return grads[0] if ctx.needs_input_grad[0] else None, (sums * ctx.lr_scale).to(grads[0].dtype), None, None


def _nearest(at: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the index of the sorted point nearest to each value, the lower of two at the same distance."""
    return torch.bucketize(at, (points[1:] + points[:-1]) / 2, out_int32=True)
