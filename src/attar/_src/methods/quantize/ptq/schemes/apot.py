"""Additive powers of two."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from attar._src.methods.quantize.ptq.schemes.level_scheme import LevelScheme
from attar._src.methods.quantize.ptq.schemes.scales import ScaleIndex
from attar._src.methods.quantize.ptq.solvers.code_grid import Real

#: Bits -> the terms of a magnitude: each is 0 or one of these powers of two, and a magnitude is the sum of one of each.
TERMS: dict[int, tuple[tuple[int, ...], ...]] = {
    3: ((4, 2, 1),),
    4: ((8, 4, 1), (2,)),
    5: ((32, 8, 2), (16, 4, 1)),
}


class AdditivePowersOfTwo(LevelScheme):
    """Sums of powers of two, which are dense near zero where most weights are (Li, Dong, Wang, "Additive powers-of-two
    quantization", ICLR 2020, arXiv 1909.13144, section 2.2; with 4 bits as in its authors' program).

    A code has a sign and a magnitude, ``p_1 + ... + p_n``; with 5 bits p_1 is 0, 32, 8 or 2 and p_2 is 0, 16, 4 or 1:

    | bits | magnitudes |
    |---|---|
    | 3 | 0, 1, 2, 4 |
    | 4 | 0, 1, 2, 3, 4, 6, 8, 10 |
    | 5 | 0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 18, 20, 24, 32, 33, ... 48 |

    A product is a few shifts and additions on hardware that has no multiplier; elsewhere it is an integer like others.
    """

    name: ClassVar[str] = "apot"
    widths: ClassVar[tuple[int, ...]] = tuple(TERMS)

    def levels(
        self, values: Real, index: ScaleIndex, importance: Real, bits: int, count: int, *, power_of_two: bool = False
    ) -> Real:
        sums = np.zeros(1)
        for powers in TERMS[bits]:
            sums = (sums[:, None] + np.array([0.0, *powers])).reshape(-1)
        return np.unique(np.concatenate([-sums, sums]))
