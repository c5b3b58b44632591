"""Weights in buckets, each scaled to [0, 1] by its own range.

With b the smallest value of a bucket and a its range, v = (w - b) / a (Polino et al. 2018, "Model compression via
distillation and quantization", section 2.1): in a bucket from -1 to 3, w = 0 has v = 0.25. A bucket is any set of
elements that share a range: a channel, the tensor, a group or a bucket of ``core.scheme``.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from attar._src.core.errors import SpecError
from attar._src.core.scheme import Granularity, PerBlock, PerBucket, PerChannel, PerGroup, Shape
from attar._src.core.tensors import Codebook
from attar._src.work.parametrization import Parametrization


class BucketRows:
    """Conversion of a tensor to a matrix with one row per bucket, and back."""

    def __init__(self, granularity: Granularity, shape: Shape) -> None:
        self.count = granularity.count(shape)
        # (s0, s1) in blocks (b0, b1) is (s0 / b0, b0, s1 / b1, b1), whose even axes number the blocks.
        self.cut: Shape = ()
        if isinstance(granularity, PerBlock):
            pairs = zip(shape, granularity.sizes, strict=True)
            self.cut = tuple(each for length, size in pairs for each in (length // size, size))
        self.shape = shape
        shape = (self.count, math.prod(self.cut[1::2])) if self.cut else shape
        # Every other granularity cuts runs of ``size`` elements out of the flat tensor, or of each index of an axis.
        of_rows = 0 if self.cut else None
        self.axis = granularity.axis if isinstance(granularity, PerChannel | PerGroup) else of_rows
        self.channels = 1 if self.axis is None else shape[self.axis]
        self.length = math.prod(shape) // self.channels if self.channels else 0
        self.size = granularity.size if isinstance(granularity, PerBucket | PerGroup) else self.length
        self.missing = -self.length % self.size if self.size else 0
        self.moved = shape if self.axis is None else (shape[self.axis], *shape[: self.axis], *shape[self.axis + 1 :])

    def of(self, x: torch.Tensor, *, fill: float | None = None) -> torch.Tensor:
        """Return ``x`` as rows ``(count, size)``; short rows are padded with ``fill`` or repeat their last value."""
        if self.cut:
            axes = range(len(self.cut))
            x = x.reshape(self.cut).permute(*axes[::2], *axes[1::2]).reshape(self.count, -1)
        flat = (x if self.axis is None else x.movedim(self.axis, 0)).reshape(self.channels, self.length)
        if self.missing:
            last = flat[:, -1:] if fill is None else flat.new_full((self.channels, 1), fill)
            flat = torch.cat([flat, last.expand(-1, self.missing)], 1)
        return flat.reshape(self.count, self.size)

    def unit(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return v as rows, 0 in rows of equal values, and a and b, ``(count, 1)``, without gradient.

        Example:
            >>> BucketRows(PerBucket(size=3), (3,)).unit(torch.tensor([-1.0, 0.0, 3.0]))
            (tensor([[0.0000, 0.2500, 1.0000]]), tensor([[4.]]), tensor([[-1.]]))
        """
        rows = self.of(x)
        low = high = rows.new_zeros(len(rows), 1)
        if rows.numel():
            low, high = torch.aminmax(rows.detach(), dim=1, keepdim=True)
        spread = high - low
        return (rows - low) / torch.where(spread > 0, spread, 1), spread, low

    def back(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the tensor with these rows; inverts :meth:`of`."""
        x = rows.reshape(self.channels, self.length + self.missing)[:, : self.length].reshape(self.moved)
        if self.cut:
            x = x.reshape(*self.cut[::2], *self.cut[1::2])
            axes = range(len(self.shape))
            return x.permute(*(each for k in axes for each in (k, k + len(axes)))).reshape(self.shape)
        return x if self.axis is None else x.movedim(0, self.axis)


class BucketedWeight(Parametrization):
    """A weight quantized bucket by bucket; ``weight`` gives its shape."""

    def __init__(self, weight: torch.Tensor, granularity: Granularity) -> None:
        super().__init__()
        self.granularity = granularity
        self.rows = BucketRows(granularity, tuple(weight.shape))

    def stored(self, value: torch.Tensor, codes: torch.Tensor, points: torch.Tensor) -> Codebook:
        """Return the codebook tensor of ``points[codes]``, codes ``(count, size)``, in the buckets of ``value``."""
        if not torch.isfinite(value).all():
            raise SpecError("a weight with NaN or infinities cannot be quantized")
        _, spread, low = self.rows.unit(value)
        return Codebook(
            np.ascontiguousarray(self.rows.back(codes).cpu().numpy().astype(np.uint8)),
            points.cpu().numpy(),
            spread.reshape(self.rows.count).cpu().numpy(),
            low.reshape(self.rows.count).cpu().numpy(),
            self.granularity,
        )
