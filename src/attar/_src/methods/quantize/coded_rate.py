"""The bits that codes take in an entropy-coded file, with a gradient while they are trained.

A coder spends ``c(q) = -log2 p(q)`` bits on code q, with p the share of q in its tensor. With v the position of a
weight on its grid, in codes, c is interpolated:

    R = sum_i (1 - f_i) c(floor v_i) + f_i c(ceil v_i),    f = v - floor v

p is counted from the rounded codes, without gradient.
"""

from __future__ import annotations

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
