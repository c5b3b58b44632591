"""Scales that span the range of the weights."""

from __future__ import annotations

from typing import ClassVar

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor, round_to_grid
from attar._src.methods.quantize.ptq.solvers.solver import Floats, InputStatistics, Solver, affine_grid, weight_extremes


class Absmax(Solver):
    """Spans the range of each group, so that no value is clipped. Should be preferred at 6 bits and more."""

    name: ClassVar[str] = "absmax"

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        return round_to_grid(weight, *affine_grid(*weight_extremes(weight, scheme), scheme), scheme)
