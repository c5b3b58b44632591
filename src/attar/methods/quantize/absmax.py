"""Absmax: the grid spans every value."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar.core.scheme import Scheme
from attar.core.tensors import CompressedTensor, quantize
from attar.methods.quantize.solver import extremes, grid


class Absmax:
    """The largest value of each group lies on the last grid point: nothing is clipped.

    Prefer it at 6 bits and more. Not to be confused with :class:`Mse`, which clips the tails where that pays.
    """

    name: ClassVar[str] = "absmax"

    def solve(self, weight: NDArray[np.float32], scheme: Scheme) -> CompressedTensor:
        """Return ``weight`` rounded to the grid that spans it (see :class:`~attar.methods.quantize.solver.Solver`)."""
        scale, zero_point = grid(*extremes(weight, scheme), scheme)
        return quantize(weight, scale, zero_point, scheme)
