"""The bits that codes take in an entropy-coded file, with a gradient while they are trained.

A coder spends ``c(q) = -log2 p(q)`` bits on code q, with p the share of q in its tensor. With v the position of a
weight on its grid, in codes, c is interpolated:

    R = sum_i (1 - f_i) c(floor v_i) + f_i c(ceil v_i),    f = v - floor v

p is counted from the rounded codes, without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_SEEN = 1.0  # added to the count of every code, so that absent codes have a finite price


def interpolated_bits(at: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the bits of codes ``low`` to ``high`` at positions ``(n,)``: interpolated, with gradient, and rounded.

    Example:
        >>> [round(float(each), 2) for each in interpolated_bits(torch.tensor([0.0, 0.0, 0.0, 0.5]), 0, 1)]
        [2.21, 1.05]
    """
    found: tuple[torch.Tensor, torch.Tensor] = _InterpolatedBits.apply(at, low, high)  # type: ignore[no-untyped-call]
    return found


class _InterpolatedBits(torch.autograd.Function):
    # One node of the autograd graph, with the codes in few bytes: a third of the passes over the weights.
    @staticmethod
    def forward(ctx: Any, at: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
        levels = high - low + 1
        inside = at.clamp(low, high).sub_(low)
        # Values that are not finite count as 0; the loss is then not finite, which the training loop reports.
        known = inside.nan_to_num(0.0)
        counts, prices = _prices(known.round(), levels, at.dtype)
        below = known.floor_().clamp_(max=max(levels - 2, 0))
        index = below.to(torch.int32)
        cheap = torch.bincount(index, minlength=levels).to(at.dtype) * prices
        slope = torch.cat([prices.diff(), prices.new_zeros(1)]).index_select(0, index)
        ctx.save_for_backward(at, slope)
        ctx.ends = low, high
        rounded = (counts * prices).sum()
        ctx.mark_non_differentiable(rounded)
        return cheap.sum() + torch.dot(inside.sub_(below), slope), rounded

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        at, slope = ctx.saved_tensors
        low, high = ctx.ends
        inside = (at >= low).logical_and_(at <= high)
        return torch.where(inside, slope * grads[0], 0.0), None, None


def code_prices(codes: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the counts of the codes ``low`` to ``high`` among ``codes``, and the bits of each.

    Example:
        >>> counts, bits = code_prices(torch.tensor([0.0, 0.0, 1.0]), 0, 1)
        >>> counts.tolist(), [round(each, 2) for each in bits.tolist()]
        ([2.0, 1.0], [0.74, 1.32])
    """
    return _prices(codes.reshape(-1) - low, high - low + 1, codes.dtype)


def _prices(codes: torch.Tensor, levels: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return counts and bits of whole numbers from 0 to ``levels - 1``, at most 256."""
    counts = torch.bincount(codes.to(torch.uint8), minlength=levels).to(dtype)
    return counts, torch.log2((counts + _SEEN).sum()) - torch.log2(counts + _SEEN)


@dataclass(frozen=True)
class CheaperCodes:
    """A tensor's codes, and the better move of each to a neighbouring code; ``(n,)`` each.

    Attributes:
        before: the codes.
        after: the codes after the moves.
        worth: relative error that a saved bit adds, ``S^2 ((p - q')^2 - (p - q)^2) / signal``; infinite without a move.
        low, high: smallest and largest code.
    """

    before: torch.Tensor
    after: torch.Tensor
    worth: torch.Tensor
    low: int
    high: int

    @classmethod
    def of(
        cls,
        codes: torch.Tensor,
        at: torch.Tensor,
        scale: torch.Tensor,
        ends: tuple[int, int],
        signal: float,
        fixed: torch.Tensor | None = None,
    ) -> CheaperCodes:
        """Return the moves of codes q at positions p with scales S.

        Args:
            codes: q, whole numbers in floating point.
            at, scale: p and S of the same shape.
            ends: smallest and largest code.
            signal: that errors are relative to, the sum of the weights' squares.
            fixed: elements that may not move.
        """
        low, high = ends
        _, prices = code_prices(codes, low, high)
        worth, after = torch.full_like(codes, torch.inf), codes.clone()
        for other in ((codes - 1).clamp(min=low), (codes + 1).clamp(max=high)):
            gain = prices[(codes - low).long()] - prices[(other - low).long()]
            error = scale.square() * ((at - other).square() - (at - codes).square()) / signal
            own = torch.where(gain > 0, error / gain.clamp(min=1e-9), torch.inf)
            after = torch.where(own < worth, other, after)
            worth = torch.minimum(own, worth)
        if fixed is not None:
            worth = torch.where(fixed, torch.inf, worth)
        return cls(codes.reshape(-1), after.reshape(-1), worth.reshape(-1), low, high)

    def saved(self) -> torch.Tensor:
        """Return the bits that each move saves alone, at the prices of the codes as they are, ``(n,)``."""
        _, prices = code_prices(self.before, self.low, self.high)
        return prices[(self.before - self.low).long()] - prices[(self.after - self.low).long()]

    def bits(self, taken: torch.Tensor) -> float:
        """Return the bits of the codes after the moves ``taken``, ``(n,)``."""
        counts, prices = code_prices(torch.where(taken, self.after, self.before), self.low, self.high)
        return float((counts * prices).sum())


def cheapest_within(found: Sequence[CheaperCodes], most: float) -> list[torch.Tensor]:
    """Return for each tensor which elements move, ``(n,)``: as few as bring all codes to ``most`` bits.

    Those come first that are worth most. All move if these are too few. Bits are those of the codes after the moves:
    a price says little of codes that are equally frequent, which cost nothing less until many have moved.

    Example:
        >>> q, at = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.0, 0.6, 0.9])
        >>> moves = CheaperCodes.of(q, at, torch.ones(5), (0, 1), signal=1.0)
        >>> cheapest_within([moves], most=4.5)
        [tensor([False, False, False,  True, False])]
    """
    worth = torch.cat([each.worth for each in found])
    order = worth.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    ranks = rank.split([each.worth.numel() for each in found])
    low, high = 0, int(torch.isfinite(worth).sum())
    while low < high:
        middle = (low + high) // 2
        if sum(each.bits(own < middle) for each, own in zip(found, ranks, strict=True)) <= most:
            high = middle
        else:
            low = middle + 1
    return [own < low for own in ranks]
