"""Ternary weights."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from attar._src.core.scheme import Scheme
from attar._src.methods.quantize.ptq.schemes.level_scheme import LevelScheme
from attar._src.methods.quantize.ptq.schemes.scales import ScaleIndex
from attar._src.methods.quantize.ptq.solvers.code_grid import Real


class Ternary(LevelScheme):
    """``-S``, 0 or ``S`` with the threshold of least squared error (Li, Zhang, Liu, "Ternary weight networks", 2016,
    arXiv 1605.04711, equations 3 to 6).

    The paper approximates the threshold by 0.7 times the mean of ``|w|``; here it is exact, by one sorted pass over the
    weights of each scale. It is the grid of ``scheme: affine`` with 2 bits, whose solvers choose a clip of the range
    instead; integer kernels and packed weights read both alike.
    """

    name: ClassVar[str] = "ternary"
    widths: ClassVar[tuple[int, ...]] = (2,)

    def levels(
        self, values: Real, index: ScaleIndex, importance: Real, bits: int, count: int, *, power_of_two: bool = False
    ) -> Real:
        return np.array([-1.0, 0.0, 1.0])

    def whole(self, grid: Scheme) -> bool:
        return True
