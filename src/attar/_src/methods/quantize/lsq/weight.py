"""Fake quantization of one weight, on a grid with learned steps and offsets."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import Codebook, CompressedTensor, round_to_grid
from attar._src.methods.quantize.lsq import function
from attar._src.methods.quantize.ptq.solvers.solver import TINY
from attar._src.methods.quantize.qat.fake_quantize import fake_quantize_weight
from attar._src.work.parametrization import GridPositions, Parametrization


class LsqWeight(Parametrization):
    """A weight rounded to a grid with learned steps; with learned offsets, stored as a codebook.

    Args:
        weight: the steps are initialized from it.
        scheme: the final grid; symmetric.
        shifted: whether offsets are learned.
        first: initial bits, if the grid is narrowed later.

    Attributes:
        step: float32 ``(count,)``; its absolute value is the scale.
        offset: float32 ``(count,)``, the value of code 0; None for zero.
        width: current bits, 0-d; only with ``first``.
    """

    def __init__(self, weight: Tensor, scheme: Scheme, *, shifted: bool = False, first: int | None = None) -> None:
        super().__init__()
        self.last, self.narrows = scheme, first is not None
        shape = tuple(weight.shape)
        self.index = nn.Buffer(torch.from_numpy(scheme.granularity.index(shape)), persistent=False)
        if first is not None:
            self.width = nn.Buffer(torch.tensor(first))
        self.count = scheme.granularity.count(shape)
        self.share = weight.numel() / max(self.count, 1)
        self.step = nn.Parameter(torch.empty(self.count, device=weight.device))
        self.offset = nn.Parameter(torch.empty_like(self.step)) if shifted else None
        self.initialize(weight)

    @property
    def scheme(self) -> Scheme:
        """The current grid."""
        return self.last.model_copy(update={"bits": int(self.width)}) if self.narrows else self.last

    @property
    def gradient_scale(self) -> float:
        """Factor of the gradients of steps and offsets."""
        return 1 / math.sqrt(max(self.share, 1) * self.scheme.qmax)

    def initialize(self, weight: Tensor) -> None:
        """Set steps and offsets from ``weight``, by the formulas of ``Lsq``."""
        values, scheme = weight.detach(), self.scheme
        if self.offset is None:
            step = 2 * self._mean(values.abs()) / math.sqrt(scheme.qmax)
            there = values != 0
            if not there.all():
                # Pruned zeros are on any grid; counting them makes the mean, and so the step, far too small.
                larger = step / self._mean(there.to(values)).clamp(min=TINY)
                step = torch.where(self._error(values, larger) < self._error(values, step), larger, step)
        else:
            mean = self._mean(values)
            step = 3 * self._mean((values - mean[self.index]).square()).sqrt() / 2 ** (scheme.bits - 1)
        # All-zero elements get the mean of the other steps, because a tiny step would clip them when they grow; in a
        # zero-initialised layer that of PyTorch's default weights, whose mean magnitude is 1 / (2 sqrt(inputs)).
        alive = step > TINY
        inputs = values[:1].numel()
        usual = step[alive].mean() if alive.any() else step.new_tensor(1 / math.sqrt(max(inputs, 1) * scheme.qmax))
        with torch.no_grad():
            self.step.copy_(torch.where(alive, step, usual))
            if self.offset is not None:
                self.offset.copy_(mean)

    def narrow(self, bits: int, weight: Tensor) -> None:
        """Reduce the grid to ``bits``, fewer than it has, and initialize it from ``weight``."""
        self.width.fill_(bits)
        self.initialize(weight)

    def forward(self, x: Tensor) -> Tensor:
        scheme = self.scheme
        return function.lsq_weight(x, self.step, self.offset, self.index, scheme.qmin, scheme.qmax, self.gradient_scale)

    def grid_positions(self, value: Tensor) -> GridPositions:
        scale, scheme = self.scale()[self.index], self.scheme
        return GridPositions((value - self._shift()) / scale, scale.detach(), scheme.qmin, scheme.qmax)

    def scale(self) -> Tensor:
        """Return the scales, float32 ``(count,)``, positive."""
        return function.scale_of_step(self.step)

    def to_compressed(self, value: Tensor) -> CompressedTensor:
        scale, scheme = self.scale().detach().cpu().numpy(), self.scheme
        shifted = np.ascontiguousarray((value - self._shift()).detach().cpu().numpy())
        quantized = round_to_grid(shifted, scale, None, scheme)
        if self.offset is None:
            return quantized
        points = np.arange(scheme.qmin, scheme.qmax + 1, dtype=np.float32)
        codes = (quantized.codes.astype(np.int16) - scheme.qmin).astype(np.uint8)
        return Codebook(codes, points, scale, self.offset.detach().cpu().numpy(), scheme.granularity)

    def _error(self, values: Tensor, step: Tensor) -> Tensor:
        """Return the mean squared error of rounding with ``step``, ``(count,)``."""
        scale, scheme = step.clamp(min=TINY)[self.index], self.scheme
        return self._mean((fake_quantize_weight(values, scale, scheme.qmin, scheme.qmax) - values).square())

    def _shift(self) -> Tensor | float:
        return 0.0 if self.offset is None else self.offset[self.index]

    def _mean(self, values: Tensor) -> Tensor:
        """Return the mean of the values that share each step, ``(count,)``."""
        index, flat = self.index.expand(values.shape).reshape(-1), values.reshape(-1)
        share = flat.new_zeros(self.count).index_add_(0, index, torch.ones_like(flat)).clamp_(min=1)
        return flat.new_zeros(self.count).index_add_(0, index, flat) / share
