"""Tensors and values of a graph as reconstruction changes them: one module for each, between the nodes of the graph.

The same graph computes the floating-point network, the network as it is stored, and the network in between that is
trained, by the mode of these modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from attar._src.artifact.manifest import Activation
from attar._src.core.float16 import SCALE_BITS
from attar._src.core.tensors import CompressedTensor, Dense, Quantized
from attar._src.methods.quantize.lsq.function import lsq_activation
from attar._src.methods.quantize.ptq.reconstruct.rounding import inverse_rectified_sigmoid, rectified_sigmoid
from attar._src.work.dynamic_rounding import DynamicRound

#: Largest distance in steps of a weight that is trained straight through from its code at the start.
_NEAR = 0.45


#: Tensors of a module that are stored.
STORED = ("codes", "scale", "stored")


class Mode(Enum):
    """What the modules of a graph compute."""

    FLOATING = "floating"  # the values before quantization
    STORED = "stored"  # the values of the file
    RELAXED = "relaxed"  # between two codes, AdaRound
    STRAIGHT = "straight"  # the nearest code, with the straight-through estimator


class Learned(nn.Module):
    """A tensor or value in the mode of its graph.

    Attributes:
        shared: whether several blocks use it, so that none of them may train it.
    """

    mode = Mode.STORED
    shared = False

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return kind -> parameters that are trained: ``codes``, ``scales``, ``vectors`` or ``grids``."""
        return {}

    def settle(self) -> None:
        """Take what was trained for what is stored."""


class FixedTensor(Learned):
    """A tensor that stays as it is stored; in floating point it has its values before quantization."""

    def __init__(self, floating: Tensor, stored: CompressedTensor) -> None:
        super().__init__()
        self.floating = nn.Buffer(floating, persistent=False)
        self.stored = nn.Buffer(torch.from_numpy(np.array(stored.dense())), persistent=False)

    def forward(self, _: Tensor) -> Tensor:
        """Return the tensor."""
        return self.floating if self.mode is Mode.FLOATING else self.stored


class LearnedVector(Learned):
    """A bias, or the factor or shift of a norm, that is trained: ``stored + unit * change``."""

    def __init__(self, floating: Tensor, stored: Tensor) -> None:
        super().__init__()
        self.floating = nn.Buffer(floating, persistent=False)
        self.stored = nn.Buffer(stored.clone())
        self.change = nn.Parameter(torch.zeros_like(stored))
        self.unit = float(stored.square().mean().sqrt()) or 1.0

    def forward(self, _: Tensor) -> Tensor:
        """Return the vector."""
        if self.mode is Mode.FLOATING:
            return self.floating
        return self.stored if self.mode is Mode.STORED else self.stored + self.unit * self.change

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"vectors": [self.change]}

    def settle(self) -> None:
        with torch.no_grad():
            self.stored.add_(self.unit * self.change)
            self.change.zero_()

    def tensor(self) -> Dense:
        """Return the vector as it is stored."""
        return Dense(self.stored.numpy().copy())


class LearnedWeight(Learned):
    """The codes and scales of a weight.

    A scale is ``short(S exp(c))`` with a trained c, rounded to the digits of a file. Elements whose floating value is
    zero keep their code, so that what is pruned stays so.

    Args:
        floating: the weight before quantization.
        tensor: its grid and first codes. Where a code is not a neighbour of the weight, as a solver may choose, its own
            neighbours towards the weight are tried.
    """

    def __init__(self, floating: Tensor, tensor: Quantized) -> None:
        super().__init__()
        scheme = tensor.scheme
        self.start = tensor
        self.low, self.high = scheme.qmin, scheme.qmax
        self.floating = nn.Buffer(floating, persistent=False)
        self.index = nn.Buffer(torch.from_numpy(scheme.granularity.index(tensor.shape)), persistent=False)
        self.scale = nn.Buffer(torch.from_numpy(tensor.scale.copy()))
        zero = np.zeros(tensor.scale.shape, np.float32) if tensor.zero_point is None else tensor.zero_point
        self.zero = nn.Buffer(torch.from_numpy(zero.astype(np.float32)), persistent=False)
        self.codes = nn.Buffer(torch.from_numpy(tensor.codes.astype(np.float32)))
        self.fixed = nn.Buffer(floating == 0, persistent=False)
        self.v = nn.Parameter(torch.empty(0), requires_grad=False)
        self.change = nn.Parameter(torch.zeros_like(self.scale))
        self.base: Tensor = torch.empty(0)

    @property
    def position(self) -> Tensor:
        """The floating weight on the grid, at most one step from its code."""
        at = self.floating / self.scale[self.index] + self.zero[self.index]
        return torch.where(self.fixed, self.codes, self.codes + (at - self.codes).clamp(-0.99, 0.99))

    def relax(self) -> None:
        """Start from the floating weight, between its two neighbours."""
        at = self.position
        self.base = torch.floor(at)
        # A code at an end of the grid has one neighbour.
        self.v = nn.Parameter(inverse_rectified_sigmoid(at - self.base))

    def straighten(self) -> None:
        """Start from the stored codes; an element is as far from its code as the floating weight, within the code."""
        at = self.position
        self.v = nn.Parameter(self.codes + (at - self.codes).clamp(-_NEAR, _NEAR))

    def forward(self, _: Tensor) -> Tensor:
        """Return the weight."""
        if self.mode is Mode.FLOATING:
            return self.floating
        return self.scales()[self.index] * (self.current_codes() - self.zero[self.index])

    def scales(self) -> Tensor:
        """Return the scales, with gradient while they are trained."""
        if self.mode is Mode.STORED or self.start.scale_dtype != "f32":
            return self.scale
        exact = self.scale * self.change.exp()
        return exact + (_short(exact.detach(), self.scale, self.change.detach()) - exact.detach())

    def current_codes(self) -> Tensor:
        """Return the codes, real numbers if they are relaxed."""
        at = self.trained_codes()
        if self.mode is Mode.STRAIGHT:
            at = at + (at.detach().round().clamp(self.low, self.high) - at.detach())
        return at

    def trained_codes(self) -> Tensor:
        """Return what is trained of the codes: real numbers before they are rounded, with gradient."""
        if self.mode is Mode.RELAXED:
            at = (self.base + rectified_sigmoid(self.v)).clamp(self.low, self.high)
        elif self.mode is Mode.STRAIGHT:
            at = self.v.clamp(self.low - 0.5, self.high + 0.5)
        else:
            return self.codes
        return torch.where(self.fixed, self.codes, at)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"codes": [self.v], "scales": [self.change] if self.start.scale_dtype == "f32" else []}

    def settle(self) -> None:
        with torch.no_grad():
            scale, codes = self.scales().clone(), self.current_codes().round()
            self.scale.copy_(scale)
            self.codes.copy_(codes)
            self.change.zero_()

    def tensor(self) -> Quantized:
        """Return the weight as it is stored."""
        codes = self.codes.numpy()
        whole = codes.astype(np.int8) if self.start.scheme.symmetric else codes.astype(np.uint8)
        return replace(self.start, codes=whole, scale=self.scale.numpy().copy())


def _short(exact: Tensor, before: Tensor, change: Tensor) -> Tensor:
    """Return scales with ``SCALE_BITS`` binary digits behind the point; those that did not change stay."""
    mask = (1 << (23 - SCALE_BITS)) - 1
    whole = exact.contiguous().view(torch.int32)
    short = ((whole + (mask // 2 + 1)) & ~mask).view(torch.float32)
    return torch.where(change == 0, before, short)


class LearnedGrid(Learned):
    """The grid of a site, whose scale is trained: ``S exp(c)``. The zero point stays.

    While a block is trained, each element stays in floating point with probability ``drop`` (Wei et al. 2022, "QDrop:
    randomly dropping quantization for extremely low-bit post-training quantization", section 4.3).
    """

    def __init__(self, grid: Activation) -> None:
        super().__init__()
        self.start = grid
        self.scale = nn.Buffer(torch.tensor(float(np.float32(grid.scale))))
        self.change = nn.Parameter(torch.zeros(()))
        self.drop = 0.0
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the value on the grid, or as it is in floating point."""
        if self.mode is Mode.FLOATING:
            return x
        grid = self.start
        if self.mode is Mode.STORED:
            codes = (x / self.scale).round_().add_(grid.zero_point).clamp_(grid.qmin, grid.qmax)
            return codes.sub_(grid.zero_point).mul_(self.scale)
        scale = self.scale * self.change.exp()
        zero, top = grid.zero_point - grid.qmin, grid.qmax - grid.qmin
        rounded = lsq_activation(x, scale, -scale.detach() * zero, zero, top, 1.0)
        if self.mode is Mode.RELAXED and self.drop:
            return mixed(rounded, x, self.drop, self.generator)
        return rounded

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"grids": [self.change]}

    def settle(self) -> None:
        with torch.no_grad():
            self.scale.mul_(self.change.exp())
            self.change.zero_()

    def activation(self, value: str) -> Activation:
        """Return the grid of a value of the site."""
        return self.start.model_copy(update={"value": value, "scale": float(self.scale)})


def mixed(one: Tensor, other: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Return ``other`` at elements drawn with probability ``share``, else ``one``."""
    return torch.where(torch.rand(one.shape, generator=generator) < share, other, one)


class StraightThroughDynamic(Learned):
    """A dynamic grid through which gradients pass; in floating point there is none."""

    def __init__(self, grid: DynamicRound) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Return the value on the grid of the moment."""
        return x if self.mode is Mode.FLOATING else x + (self.grid(x.detach()) - x.detach())


def set_mode(parts: Iterable[Learned], mode: Mode) -> None:
    """Let parts compute in a mode; shared ones, which are not trained, stay stored, with gradients through grids."""
    for part in parts:
        untrained = Mode.STRAIGHT if isinstance(part, LearnedGrid) else Mode.STORED
        trains = mode in (Mode.RELAXED, Mode.STRAIGHT)
        part.mode = untrained if part.shared and trains else mode
