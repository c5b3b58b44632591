"""The rule of differentiable quantization: the points that weights are rounded to are trained."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.core.scheme import Granularity, PerBucket, PerChannel
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.field_types import CodeBits, GranularityChoice
from attar._src.methods.quantize.polino.buckets import BucketedWeight, BucketRows, bucket_spans, scale_to_unit
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView

Start = Literal["percentile", "uniform"]

LEAST_POINTS, MOST_POINTS = 2, 256


class LearnedCodebook(Rule):
    """Every weight tensor has points of its own, which learn where to lie (Polino et al. 2018, "Model compression via
    distillation and quantization", section 4, Algorithm 2: differentiable quantization).

    With a the range of a bucket, b its least value and v = (w - b) / a, what is read is ``a p + b``, p the point
    nearest to v (of two as near, the lower). A point gets the gradient of all that is read from it:

        dL/dp_j = sum of a_i dL/dw_q,i over the elements i of point j

    A point that no weight is near to gets none, and stays. Points begin within [0, 1]. They are read and
    stored in order; where two cross, the parameter itself is not sorted, so that each keeps its momentum.

    ``weights: frozen`` is the paper's: points are trained and weights are not. The other parameters (biases,
    batch-norms) go on being trained here; the authors' program quantizes those too, and trains no parameter but the
    points. ``trained`` is beyond the paper: weights and points together, with a straight-through gradient to the
    weights.

    ``share: gradient`` deals points out among tensors by the norm of their gradient (section 4, there from a few
    batches before training): ``2^bits`` for each tensor while the norms of dL/dw_q are averaged over the first epoch;
    then, as in the authors' program, each keeps half of them and the other halves are dealt anew in proportion to the
    norms, at least 2 and at most 256 each and as many in all. Where the number changes, points start again; the
    optimizer's momentum is left as it is. A stage of one epoch ends before that, with the points it has trained.

    The sum makes gradients of points large, and the paper's learning rates for them small, about 1e-5; ``lr_scale``
    sets theirs apart from that of the other parameters. Prefer ``lsq`` or ``uniform``, which train the weights, below
    4 bits. The points have no zero as a rule, so that what ``prune`` set to zero does not stay there.

    Attributes:
        bits: 2^bits is the number of points of a tensor, or its mean over the tensors.
        granularity: which weights share a range, as in ``quantize``.
        start: points begin at the percentiles of v, or evenly spaced.
        share: the same number of points for every tensor, or more where the gradient is larger.
        weights: whether the weights stay as they are.
        lr_scale: factor of the points' gradient; with ``sgd`` that of their learning rate.
        keep: globs of layers or weights left in floating point.
        overrides: glob of layers or weights -> bits; of several that match, the last holds.
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
        """Return the points of the weights that are chosen.

        Raises:
            UnknownName: a glob matches no layer.
            SpecError: the granularity does not fit a weight.
        """
        weights = {}
        for name, bits in select_weights(learner, self.bits, self.overrides, keep=self.keep).items():
            granularity = self.granularity or PerChannel(axis=learner.weights[name].axis)
            room = MOST_POINTS if self.share == "gradient" else 1 << bits
            try:
                codebook = CodebookWeight(learner.tensor(name), 1 << bits, granularity, room=room, start=self.start)
            except SpecError as error:
                raise SpecError(f"codebook at {name!r}: {error}") from error
            codebook.frozen, codebook.lr_scale = self.weights == "frozen", self.lr_scale
            weights[name] = codebook
        return CodebookConstraint(weights, deals=self.share == "gradient")


class CodebookWeight(BucketedWeight):
    """A weight rounded to the nearest of some points.

    Args:
        weight: what the points begin from.
        count: how many points.
        granularity: which elements share a bucket.
        room: how many points there may come to be.
        start: where they begin.

    Attributes:
        points: float32 ``(room,)``, of which the first ``count`` are in use, in any order.
        count: how many are in use.
        wanted: how many shall be from the next step on.
        norm: sum over the steps of the norm of dL/dw_q, while ``watching``.
        frozen: the weight gets no gradient.
        lr_scale: factor of the points' gradient.

    Raises:
        SpecError: the granularity does not fit the shape.
    """

    count: torch.Tensor
    wanted: torch.Tensor
    norm: torch.Tensor

    def __init__(
        self, weight: torch.Tensor, count: int, granularity: Granularity, *, room: int, start: Start = "percentile"
    ) -> None:
        super().__init__(weight, granularity)
        self.start, self.frozen, self.lr_scale, self.watching = start, True, 1.0, False
        self.points = nn.Parameter(torch.zeros(room))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("wanted", torch.tensor(count))
        self.register_buffer("norm", torch.tensor(0.0))
        self.lay(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the points."""
        x = x.detach() if self.frozen else x
        read: torch.Tensor = _Nearest.apply(x, self.active(), self.rows, self.lr_scale)  # type: ignore[no-untyped-call]
        if self.training and self.watching and read.requires_grad:
            read.register_hook(self._watch)
        return read

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return the codes, points and buckets of what ``forward`` returns."""
        value, points = value.detach(), self.active().detach()
        rows = self.rows.of(value)
        return self.stored(value, _nearest(scale_to_unit(rows, *bucket_spans(rows)), points), points)

    def active(self) -> torch.Tensor:
        """Return the points in use, in order, with gradient to each where it is in ``points``."""
        return self.points[: int(self.count)].sort(stable=True).values

    def lay(self, weight: torch.Tensor) -> None:
        """Have as many points as are wanted; where that is another number they start again."""
        count = int(self.wanted)
        if count == int(self.count):
            return
        points = np.linspace(0, 1, count)
        if self.start == "percentile" and weight.numel():
            rows = self.rows.of(weight.detach())
            at = self.rows.back(scale_to_unit(rows, *bucket_spans(rows))).cpu().numpy()
            points = np.quantile(at, points)
        with torch.no_grad():
            self.points.zero_()[:count] = torch.from_numpy(points.astype(np.float32))
            self.count.fill_(count)

    def _watch(self, grad: torch.Tensor) -> None:
        self.norm += grad.detach().norm()


class CodebookConstraint(Constraint):
    """The points of a :class:`LearnedCodebook`.

    Args:
        weights: name of a weight -> its points.
        left: weight left alone -> why.
        deals: whether points are dealt anew after the first epoch.
    """

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"

    dealt: torch.Tensor

    def __init__(self, weights: Mapping[str, CodebookWeight], *, deals: bool) -> None:
        super().__init__(weights)
        self.sets = weights
        #: 0 while norms are collected, 1 once the shares are known, 2 once points are laid by them.
        self.register_buffer("dealt", torch.tensor(0 if deals else 2))

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Lay the points that the first epoch dealt, once."""
        stage = int(self.dealt)
        for name in self.weights:
            self.sets[name].watching = stage == 0
            if stage == 1:
                self.sets[name].lay(weights.value(name))
        if stage == 1:
            self.dealt.fill_(2)

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """At the end of the first epoch, deal the points by the norms, averaged over the ranks."""
        if int(self.dealt) == 2:
            return
        codebooks = [self.sets[name] for name in self.weights]
        for each in codebooks:
            each.norm.copy_(mean(each.norm))
        counts = deal_points([float(each.norm) for each in codebooks], [int(each.count) for each in codebooks])
        for each, count in zip(codebooks, counts, strict=True):
            each.wanted.fill_(count)
        self.dealt.fill_(1)

    def finalize(self, weights: WeightView) -> None:
        """End the dealing: a later stage goes on with the points that this one has trained."""
        for name in self.weights:
            codebook = self.sets[name]
            codebook.wanted.copy_(codebook.count)
            codebook.watching = False
        self.dealt.fill_(2)


def deal_points(
    norms: Sequence[float], counts: Sequence[int], least: int = LEAST_POINTS, most: int = MOST_POINTS
) -> list[int]:
    """Return how many points each gets: half of what it has, and of the other halves what is in proportion to its norm.

    Those are dealt by Webster's method: one by one, to whom ``norm / (dealt + 1/2)`` is largest; of equals to the one
    with fewer, then the first.

    Args:
        norms: not negative.
        counts: how many points each has, between ``least`` and ``most``.
        least, most: bounds of a share.
    """
    found = [max(least, count // 2) for count in counts]
    heap = [(-2 * norm, 0, index) for index, norm in enumerate(norms) if found[index] < most]
    heapq.heapify(heap)
    for _ in range(sum(counts) - sum(found)):
        _, dealt, index = heapq.heappop(heap)
        found[index] += 1
        if found[index] < most:
            heapq.heappush(heap, (-norms[index] / (dealt + 1.5), dealt + 1, index))
    return found


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, points: torch.Tensor, rows: BucketRows, lr_scale: float) -> torch.Tensor:
        values = rows.of(w)
        spread, low = bucket_spans(values)
        codes = _nearest(scale_to_unit(values, spread, low), points)
        ctx.save_for_backward(codes, spread)
        ctx.rows, ctx.levels, ctx.lr_scale = rows, len(points), lr_scale
        # Far faster than points[codes].
        read = points.index_select(0, codes.reshape(-1)).reshape(codes.shape)
        return rows.back(read.mul_(spread).add_(low))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None, None]:
        codes, spread = ctx.saved_tensors
        # In double: a point adds up a share of all weights.
        part = (ctx.rows.of(grads[0], fill=0.0) * spread).double().reshape(-1)
        sums = part.new_zeros(ctx.levels).index_add_(0, codes.reshape(-1), part)
        return grads[0] if ctx.needs_input_grad[0] else None, (sums * ctx.lr_scale).to(grads[0].dtype), None, None


def _nearest(at: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the number of the point nearest to each value; of two as near, the lower.

    Args:
        at: values, any shape.
        points: in order, ``(levels,)``.
    """
    return torch.bucketize(at, (points[1:] + points[:-1]) / 2, out_int32=True)
