"""Absmax: the grid spans every value."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor, round_to_grid
from attar._src.methods.quantize.ptq.solver import InputStatistics, Solver, affine_grid, weight_extremes


class Absmax(Solver):
    """The largest value of each group lies on the last grid point: nothing is clipped.

    Prefer it at 6 bits and more. Not to be confused with :class:`Mse`, which clips the tails where that pays.
    """

    name: ClassVar[str] = "absmax"

    def solve(
        self, weight: NDArray[np.float32], scheme: Scheme, inputs: InputStatistics | None = None
    ) -> CompressedTensor:
        scale, zero_point = affine_grid(*weight_extremes(weight, scheme), scheme)
        return round_to_grid(weight, scale, zero_point, scheme)
