"""Half-quadratic quantization: grids for weights with outliers, without any data."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.core.float16 import SCALE_BITS, round_nearest
from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor, Quantized, round_to_grid
from attar._src.methods.quantize.ptq.solvers.solver import (
    TINY,
    Floats,
    InputStatistics,
    Solver,
    affine_grid,
    flat_index,
    sums_of,
    weight_extremes,
)

_Real = NDArray[np.float64]


class HalfQuadratic(Solver):
    """Scales and zero points with the least ``sum |w - w'|^p``, p = 0.7, so that few large weights do not decide.

    Half-quadratic splitting (Badri, Shaji, "Half-quadratic quantization of large machine learning models", 2023): with
    e in the place of the error ``w - w'``,

        min  sum |e|^p + beta / 2 (e - (w - w'))^2,      beta growing by kappa = 1.01 from 10,

    is solved in turns: ``e = sign(x) max(|x| - |x|^(p-1) / beta, 0)`` with x = w - w'; then scales and zero points by
    least squares on ``w - e``; then codes. Of 20 turns the grid with the least ``sum |w - w'|^p`` is kept for each
    scale on its own, the range of the weights being the first.

    Deviations: errors are in steps, so that weights of any size give the same codes; scales are fitted beside the zero
    points, which are whole here, or alone on a symmetric grid.

    Should be preferred where there is no data at all and weights have outliers, with groups and zero points
    (``granularity: group:64``, ``symmetric: false``). With data ``gptq`` is better.
    """

    name: ClassVar[str] = "hqq"
    power: ClassVar[float] = 0.7
    beta: ClassVar[float] = 10.0
    kappa: ClassVar[float] = 1.01
    turns: ClassVar[int] = 20

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        scale, zero = affine_grid(*weight_extremes(weight, scheme), scheme)
        index, values = flat_index(weight, scheme), weight.astype(np.float64).reshape(-1)
        found = round_to_grid(weight, scale, zero, scheme)
        best, least = found, self._errors(values, found, index)
        beta = self.beta
        for _ in range(self.turns):
            step = found.scale.astype(np.float64)[index]
            error = (values - found.dense().reshape(-1)) / step
            size = np.maximum(np.abs(error), TINY)
            kept = np.sign(error) * np.maximum(size - size ** (self.power - 1) / beta, 0)
            found = self._fitted(weight, values - step * kept, found, index)
            errors = self._errors(values, found, index)
            best, least = _better(weight, (best, least), (found, errors)), np.minimum(least, errors)
            beta *= self.kappa
        return best

    def _errors(self, values: _Real, found: Quantized, index: NDArray[np.int64]) -> _Real:
        """Return ``sum |w - w'|^p`` of each scale."""
        size = np.abs(values - found.dense().reshape(-1)) ** self.power
        return sums_of(index, size, found.scale.size)

    def _fitted(self, weight: Floats, aims: _Real, found: Quantized, index: NDArray[np.int64]) -> Quantized:
        """Return the weight on the grid that fits ``aims`` by least squares with the codes of ``found``."""
        scheme, count, zero = found.scheme, found.scale.size, found.zero_point
        codes = found.codes.reshape(-1).astype(np.float64)
        centred = codes if zero is None else codes - zero[index]
        products, squares = sums_of(index, centred * aims, count), sums_of(index, centred**2, count)
        scale = _ratio(products, squares, found.scale, 0 if scheme.power_of_two else SCALE_BITS)
        if zero is not None:
            number = np.maximum(np.bincount(index, minlength=count), 1)
            mean = sums_of(index, codes - aims / scale.astype(np.float64)[index], count) / number
            zero = np.clip(np.rint(mean), scheme.qmin, scheme.qmax).astype(np.uint8)
        return round_to_grid(weight, scale, zero, scheme)


def _ratio(products: _Real, squares: _Real, before: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Return least-squares scales of so many binary digits, those from before where there are none."""
    scale = np.where(squares > 0, products / np.maximum(squares, TINY), 0.0).astype(np.float32)
    return np.where(scale > TINY, round_nearest(np.maximum(scale, TINY), bits), before).astype(np.float32)


def _better(weight: Floats, one: tuple[Quantized, _Real], other: tuple[Quantized, _Real]) -> Quantized:
    """Return the weight with the better grid for each scale."""
    (first, errors), (second, others) = one, other
    taken = others < errors
    scale = np.where(taken, second.scale, first.scale)
    zero = None
    if first.zero_point is not None and second.zero_point is not None:
        zero = np.where(taken, second.zero_point, first.zero_point)
    return round_to_grid(weight, scale, zero, first.scheme)
