"""AdaRound's relaxation of the choice between the two neighbours of a weight.

A weight at the position p = w / S + Z of its grid becomes

    p' = clip(floor(p) + h(v), qmin, qmax),      h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1)

with a real v for each weight. The regulariser

    f(v) = 1 - |2 h(v) - 1|^beta

is 0 where h is 0 or 1. A large beta leaves the middle alone, and beta falls from 20 to 2 while v is trained (Nagel et
al. 2020, "Up or down? Adaptive rounding for post-training quantization", section 3.2, equations 21 to 24).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: The sigmoid is stretched from (0, 1) to (LOW, HIGH), so that h reaches 0 and 1.
LOW, HIGH = -0.1, 1.1
FIRST_BETA, LAST_BETA = 20.0, 2.0


def rectified_sigmoid(v: Tensor) -> Tensor:
    """Return h(v), in 0 to 1: 0 -> 0.5, 2.4 -> 1."""
    return (torch.sigmoid(v) * (HIGH - LOW) + LOW).clamp(0, 1)


def inverse_rectified_sigmoid(h: Tensor) -> Tensor:
    """Return v with ``h(v) = h``, for h in 0 to 1: 0.5 -> 0, 1 -> 2.398."""
    share = (h - LOW) / (HIGH - LOW)
    return torch.log(share / (1 - share))


def rounding_regulariser(v: Tensor, beta: float) -> Tensor:
    """Return f(v), in 0 to 1: ``1 - |2 h - 1|^beta``, 0.75 for h = 0.75 and beta = 2."""
    return 1 - (2 * rectified_sigmoid(v) - 1).abs() ** beta


def beta_at(progress: float) -> float:
    """Return beta, from ``FIRST_BETA`` at 0 to ``LAST_BETA`` at 1 along half a cosine."""
    return LAST_BETA + (FIRST_BETA - LAST_BETA) * (1 + math.cos(math.pi * progress)) / 2
