"""A budget of coded bits for the codes that reconstruction moves: what a target has counted stays true."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attar._src.methods.quantize.coded_rate import CheaperCodes, interpolated_bits
from attar._src.methods.quantize.ptq.reconstruct.learned import LearnedWeight

#: Change of the logarithm of the price in a step, per relative excess.
_DUAL_STEP = 0.2
#: Relative excess that is none: shares of codes are not quite what a coder makes of them.
_NEAR = 0.002
#: Times that codes are moved at most: prices are those of the codes before.
_FITS = 8
#: What an excess adds to an error, so that of two states the one within the budget is better.
_REFUSED = 1e3


class CodeBudget:
    """Holds the coded bits of some weights to a budget while they are trained, by a price that follows the excess.

    The loss gets ``p R / B`` with the interpolated rate R of the codes (``coded_rate``), the budget B, and

        log p += 0.2 (R' / B - 1)

    in every step, R' the rate of the rounded codes. p starts at ``2 ln 2 (B / n) L`` with the loss L and n weights,
    what a bit is worth where an error falls by 6 dB a bit: ``D ~ 2^(-2 B / n)``.

    Args:
        weights: in the mode in which they are trained.
        bits: the budget; what the codes take now by default.
    """

    def __init__(self, weights: Sequence[LearnedWeight], bits: float | None = None) -> None:
        self.weights = weights
        self.bits = self._bits()[1] if bits is None else bits
        self._log_price = -math.inf

    def fit(self) -> None:
        """Move stored codes to cheaper neighbours until the bits are within the budget.

        Those come first whose move adds least relative error ``S^2 ((p - q')^2 - (p - q)^2) / sum of S^2 q^2`` for a
        bit, with p the position of the floating weight.
        """
        for _ in range(_FITS):
            over = self._bits()[1] - self.bits
            if over <= 0:
                break
            found = [_moves(weight) for weight in self.weights]
            worth, gains = torch.cat([each.worth for each in found]), torch.cat([each.saved() for each in found])
            order = worth.argsort(stable=True)
            order = order[torch.isfinite(worth[order])]
            count = int(torch.searchsorted(gains[order].cumsum(0), over)) + 1
            taken = torch.zeros_like(worth, dtype=torch.bool)
            taken[order[:count]] = True
            if not len(order):
                break
            start = 0
            with torch.no_grad():
                for weight, moves in zip(self.weights, found, strict=True):
                    mask = taken[start : start + len(moves.worth)]
                    weight.codes.copy_(torch.where(mask, moves.after, moves.before).reshape(weight.codes.shape))
                    start += len(moves.worth)

    def start(self, loss: float) -> None:
        """Set the price for a loss at the start."""
        elements = sum(weight.codes.numel() for weight in self.weights)
        price = 2 * math.log(2) * self.bits / max(elements, 1) * loss
        self._log_price = math.log(max(price, 1e-12))

    def penalty(self) -> Tensor:
        """Return what a step adds to its loss, and let the price follow."""
        if not self.bits:
            return torch.zeros(())
        interpolated, rounded = self._rates()
        self._log_price += _DUAL_STEP * (float(rounded) / self.bits - 1)
        return math.exp(min(self._log_price, 50.0)) * interpolated / self.bits

    def refused(self) -> float:
        """Return what the stored codes add to an error for bits above the budget."""
        return _REFUSED * max(0.0, self._bits()[1] / max(self.bits, 1.0) - 1 - _NEAR)

    def _bits(self) -> tuple[float, float]:
        with torch.no_grad():
            interpolated, rounded = self._rates()
        return float(interpolated), float(rounded)

    def _rates(self) -> tuple[Tensor, Tensor]:
        pairs = [interpolated_bits(each.trained_codes().reshape(-1), each.low, each.high) for each in self.weights]
        interpolated, rounded = zip(*pairs, strict=True) if pairs else ((), ())
        return sum(interpolated, torch.zeros(())), sum(rounded, torch.zeros(()))


def _moves(weight: LearnedWeight) -> CheaperCodes:
    codes, scale, zero = weight.codes, weight.scale[weight.index], weight.zero[weight.index]
    signal = float((scale * (codes - zero)).square().sum()) or 1.0
    return CheaperCodes.of(
        codes, weight.floating / scale + zero, scale, (weight.low, weight.high), signal, weight.fixed
    )
