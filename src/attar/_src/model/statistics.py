"""Statistics: what solvers, observers and bias correction request of the values of a graph.

Each is a small accumulator. ``model.collect`` runs real inputs through the graph and adds every batch of a value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from attar._src.core.errors import ModelError
from attar._src.model.weights import Window

BINS = 4096
#: Elements of the vectors made at once, 64 MiB: a 3x3 convolution makes nine of one element.
VECTOR_ELEMENTS = 1 << 24
#: Positions of a convolution, for each element of its vectors, of which a batch tells its Hessian.
DRAWN = 64
#: Elements that are counted or summed at once: what is made of them stays in the cache.
_CACHED_ELEMENTS = 1 << 16


class Statistic(ABC):
    """What accumulates over the batches of a value.

    It is made as ``kind(*done, *arguments)``: the finished statistics of the same value that ``after`` names, then
    hashable arguments, so that equal requests share one statistic.

    NaN and infinities are left out: single elements of a range, whole vectors of a mean or Hessian.

    Attributes:
        after: statistics that must be finished before the first batch is added; each level of them takes a pass.
        elements: the number of elements of all batches.
        left_out: how many of them were left out.
    """

    after: ClassVar[tuple[type[Statistic], ...]] = ()
    elements: int = 0
    left_out: int = 0

    @abstractmethod
    def add(self, x: torch.Tensor) -> None:
        """Add one batch of the value."""

    def all_finite(self, x: torch.Tensor, figures: torch.Tensor) -> bool:
        """Count the elements of a batch, and return whether all are finite, as the figures made of them tell.

        Raises:
            ModelError: the elements are finite and the figures are not.
        """
        self.elements += x.numel()
        if torch.isfinite(figures).all():
            return True
        if torch.isfinite(x).all():
            raise ModelError("its squares overflow")
        return False

    @classmethod
    def arguments(cls, window: Window) -> tuple[Any, ...]:
        """Return the arguments for the input of a layer that reads it through ``window``."""
        return ()

    @classmethod
    def nbytes(cls, *arguments: Any) -> int:
        """Return the approximate size of the accumulator in bytes."""
        return 64


class Range(Statistic):
    """The smallest and the largest value, any shape.

    Attributes:
        low, high: of all batches; infinity and minus infinity before the first.
    """

    def __init__(self, low: float = np.inf, high: float = -np.inf) -> None:
        self.low, self.high = low, high

    def add(self, x: torch.Tensor) -> None:
        if x.numel():
            ends = torch.stack(torch.aminmax(x.detach()))
            if not self.all_finite(x, ends):
                whole, x = x.numel(), x[torch.isfinite(x)]
                self.left_out += whole - x.numel()
                if not x.numel():
                    return
                ends = torch.stack(torch.aminmax(x.detach()))
            low, high = ends.tolist()
            self.low, self.high = min(self.low, low), max(self.high, high)


class Histogram(Statistic):
    """How the values spread between their extremes, any shape.

    Attributes:
        low, high: the smallest and the largest value.
        counts: int64, the number of values in each of 4,096 equal bins from ``low`` to ``high``; if these are equal,
            all are in the first bin.
        zeros: how many values are exactly zero.
    """

    after: ClassVar[tuple[type[Statistic], ...]] = (Range,)

    def __init__(self, extremes: Range) -> None:
        self.low, self.high = extremes.low, extremes.high
        self.elements, self.left_out = extremes.elements, extremes.left_out
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.zeros = 0

    @property
    def edges(self) -> NDArray[np.float64]:
        """The ends of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5), np.float64)

    def add(self, x: torch.Tensor) -> None:
        x = x.detach().float().cpu()
        if self.left_out:
            x = x[torch.isfinite(x)]
        low, high = torch.tensor([self.low, self.high])
        # As torch.histc computes it, in a quarter of the time.
        for part in x.reshape(-1).split(_CACHED_ELEMENTS):
            self.zeros += int(np.count_nonzero((part == 0).numpy()))
            if self.high > self.low:
                bins = part.sub(low).mul_(BINS).div_(high - low).int().clamp_(0, BINS - 1)
                self.counts += torch.bincount(bins, minlength=BINS).numpy()
            else:
                self.counts[0] += part.numel()

    @classmethod
    def nbytes(cls, *arguments: Any) -> int:
        return 8 * BINS


class ChannelMean(Statistic):
    """The mean over all axes but ``axis``, which has ``channels`` elements."""

    def __init__(self, axis: int, channels: int) -> None:
        self.axis, self.vectors = axis, 0
        self.total = torch.zeros(channels, dtype=torch.float64)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each channel, ``(channels,)``."""
        return np.asarray((self.total / self.vectors).numpy())

    def add(self, x: torch.Tensor) -> None:
        x, axis = x.detach(), self.axis % x.dim()
        others = [each for each in range(x.dim()) if each != axis]
        # Converted whole, a large tensor takes ten times as long: its memory is new.
        parts = x.split(max(1, _CACHED_ELEMENTS // max(x[:1].numel(), 1))) if axis else (x,)
        summed = torch.zeros(x.shape[axis], dtype=torch.float64)
        for part in parts:
            summed += (part.sum(others, dtype=torch.float64) if others else part.double()).cpu()
        vectors = x.numel() // max(len(summed), 1)
        if not self.all_finite(x, summed):
            moved = x.double().movedim(self.axis, -1).flatten(0, -2)
            moved = moved[torch.isfinite(moved).all(-1)]
            self.left_out += x.numel() - moved.numel()
            summed, vectors = moved.sum(0).cpu(), len(moved)
        self.total += summed
        self.vectors += vectors

    @classmethod
    def arguments(cls, window: Window) -> tuple[Any, ...]:
        return window.axis, window.channels

    @classmethod
    def nbytes(cls, *arguments: Any) -> int:
        return 8 * int(arguments[1])


class ChannelSquares(ChannelMean):
    """The mean square over all axes but ``axis``."""

    def add(self, x: torch.Tensor) -> None:
        super().add(x.detach().square())


class InputHessian(Statistic):
    """The second derivative of a layer's squared output error by a row of its weight.

    With x_1 ... x_N the vectors that a row w multiplies (see :class:`Window`), one for each position of each example,

        H = 2 / N  sum_n x_n x_n^T,

    so that rounding w to w + d changes the mean square of the output by ``d^T H d / 2``. Rows of one group share H. Of
    a batch in which a convolution has more than 64 d positions, so many are drawn: neighbours tell much the same.
    Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate post-training quantization for generative pre-trained
    transformers", ICLR 2023 (arXiv 2210.17323), section 3, where H = 2 X X^T is not divided by N; no solver of
    theirs depends on the factor. Products are float32, the running mean is float64.

    Attributes:
        window: ``window.rows(weight)`` is the weight with the rows that ``matrix`` belongs to,
            ``(groups, out / groups, d)``; ``window.weight`` puts rows back.
        samples: N.
        matrix: H, float64, ``(groups, d, d)``.
    """

    def __init__(self, window: Window) -> None:
        self.window, self.samples = window, 0
        self.matrix: NDArray[np.float64] = np.zeros((window.groups, window.length, window.length))

    def add(self, x: torch.Tensor) -> None:
        x = x.detach()
        kernel = self.window.kernel
        each = prod(kernel) * x[:1].numel()
        for part in x.split(max(1, VECTOR_ELEMENTS // max(each, 1))) if x.dim() == len(kernel) + 2 else (x,):
            self.add_vectors(self.window.vectors(part, most=DRAWN * self.window.length, seed=self.samples))

    def add_vectors(self, vectors: torch.Tensor) -> None:
        """Add vectors of the window, ``(groups, n, d)``."""
        products = (vectors.mT @ vectors).cpu()
        if not self.all_finite(vectors, products):
            whole, vectors = vectors.numel(), vectors[:, torch.isfinite(vectors).all(-1).all(0)]
            self.left_out += whole - vectors.numel()
            products = (vectors.mT @ vectors).cpu()
        if count := vectors.shape[1]:
            mean = torch.from_numpy(self.matrix)
            mean.mul_(self.samples / (self.samples + count))
            self.samples += count
            mean.add_(products, alpha=2 / self.samples)

    def joined(self, other: InputHessian) -> InputHessian:
        """Return H of the vectors of both, of weights with the same rows."""
        both = InputHessian(self.window)
        both.samples = self.samples + other.samples
        share = self.samples / max(both.samples, 1)
        both.matrix = share * self.matrix + (1 - share) * other.matrix
        return both

    @classmethod
    def arguments(cls, window: Window) -> tuple[Any, ...]:
        return (window,)

    @classmethod
    def nbytes(cls, *arguments: Any) -> int:
        window: Window = arguments[0]
        return 8 * window.groups * window.length**2
