"""The bits that codes take in an entropy-coded file, with a gradient while they are trained.

A coder spends ``c(q) = -log2 p(q)`` bits on code q, with p the share of q in its tensor. With v the position of a
weight on its grid, in codes, c is interpolated:

    R = sum_i (1 - f_i) c(floor v_i) + f_i c(ceil v_i),    f = v - floor v

p is counted from the rounded codes, without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

_SEEN = 1.0  # added to the count of every code, so that absent codes have a finite price


def interpolated_bits(at: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the bits of codes ``low`` to ``high`` at positions ``(n,)``: interpolated, with gradient, and rounded.

    Example:
        >>> [round(float(each), 2) for each in interpolated_bits(torch.tensor([0.0, 0.0, 0.0, 0.5]), 0, 1)]
        [2.21, 1.05]
    """
    levels = high - low + 1
    inside = at.clamp(low, high) - low
    with torch.no_grad():
        # Values that are not finite count as 0; the loss is then not finite, which the training loop reports.
        known = inside.nan_to_num(0.0)
        counts, prices = code_prices(known.round() + low, low, high)
        below = known.floor().clamp_(max=max(levels - 2, 0)).long()
        cheap = prices[below]
        slope = prices[(below + 1).clamp_(max=levels - 1)] - cheap
    return (cheap + (inside - below) * slope).sum(), (counts * prices).sum()


def code_prices(codes: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the counts of the codes ``low`` to ``high`` among ``codes``, and the bits of each.

    Example:
        >>> counts, bits = code_prices(torch.tensor([0.0, 0.0, 1.0]), 0, 1)
        >>> counts.tolist(), [round(each, 2) for each in bits.tolist()]
        ([2.0, 1.0], [0.74, 1.32])
    """
    counts = torch.bincount((codes.reshape(-1) - low).long(), minlength=high - low + 1).to(codes.dtype)
    return counts, torch.log2((counts + _SEEN).sum()) - torch.log2(counts + _SEEN)


class CheaperCodes(NamedTuple):
    """The better move of each element to a neighbouring code, ``(n,)`` each.

    Attributes:
        worth: relative error that a saved bit adds, ``S^2 ((p - q')^2 - (p - q)^2) / signal``; infinite without a move.
        bits: that are saved.
        codes: after the move.
    """

    worth: torch.Tensor
    bits: torch.Tensor
    codes: torch.Tensor

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
        best = torch.full_like(codes, torch.inf)
        bits, moved = torch.zeros_like(codes), codes.clone()
        for other in ((codes - 1).clamp(min=low), (codes + 1).clamp(max=high)):
            gain = prices[(codes - low).long()] - prices[(other - low).long()]
            error = scale.square() * ((at - other).square() - (at - codes).square()) / signal
            worth = torch.where(gain > 0, error / gain.clamp(min=1e-9), torch.inf)
            better = worth < best
            best, bits, moved = (torch.where(better, *pair) for pair in ((worth, best), (gain, bits), (other, moved)))
        if fixed is not None:
            best = torch.where(fixed, torch.inf, best)
        return cls(best.reshape(-1), bits.reshape(-1), moved.reshape(-1))


def take_cheapest(found: Sequence[CheaperCodes], over: float) -> list[torch.Tensor]:
    """Return for each tensor which elements move, ``(n,)``: those worth most, until they save ``over`` bits.

    Example:
        >>> moves = CheaperCodes(torch.tensor([0.2, 0.1, torch.inf]), torch.tensor([1.0, 2.0, 0.0]), torch.zeros(3))
        >>> take_cheapest([moves], over=1.5)
        [tensor([False,  True, False])]
    """
    worth, gains = (torch.cat([each[place] for each in found]) for place in (0, 1))
    order = worth.argsort(stable=True)
    order = order[torch.isfinite(worth[order])]
    count = int(torch.searchsorted(gains[order].cumsum(0), over)) + 1
    taken = torch.zeros_like(worth, dtype=torch.bool)
    taken[order[:count]] = True
    return [*taken.split([each.worth.numel() for each in found])]
