"""The base of schemes: weights on some levels of an integer grid."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from attar._src.core.errors import SpecError
from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor, Quantized
from attar._src.methods.quantize.ptq.schemes.scales import (
    ScaleIndex,
    best_powers,
    best_scales,
    level_errors,
    nearest_levels,
    stored_scales,
)
from attar._src.methods.quantize.ptq.solvers.code_grid import CodeGrid, Real
from attar._src.methods.quantize.ptq.solvers.columns import HessianFactor, descend, round_columns
from attar._src.methods.quantize.ptq.solvers.gptq import SWEEPS, damped
from attar._src.methods.quantize.ptq.solvers.solver import (
    TINY,
    Floats,
    InputStatistics,
    Solver,
    flat_index,
    sums_of,
    weight_extremes,
)
from attar._src.model.statistics import InputHessian, Statistic

#: Times that codes are rounded again with feedback, with the scales of the codes before.
FEEDBACK_ROUNDS = 3


class LevelScheme(Solver):
    """Weights ``S q`` with q among some whole numbers, the *levels*, stored as codes of the least grid that has them.

    With levels -1 and 1, or ``{-10, -8, ..., 10}``, codes are whole numbers, so that integer kernels read them; entropy
    coding makes of few levels few bits, whatever the bits of the grid. Weights that are zero stay zero.

    Scales are those of least squared error (:func:`best_scales`), each weight by the mean square of what it multiplies,
    if that is known (the diagonal of its Hessian; Kim et al. 2023, "SqueezeLLM", arXiv 2306.07629, section 4.1, weighs
    by that of the loss). Then codes are rounded column by column with feedback, as ``gptq`` does
    (:mod:`~attar._src.methods.quantize.ptq.solvers.columns`), and scales are fitted to the codes by least squares on
    the layer's output, in turns, as long as its error falls.

    Attributes:
        widths: the bits that the scheme may have.
    """

    inputs: ClassVar[tuple[type[Statistic], ...]] = (InputHessian,)
    inputs_optional: ClassVar[bool] = True
    widths: ClassVar[tuple[int, ...]]

    @abstractmethod
    def levels(
        self, values: Real, index: ScaleIndex, importance: Real, bits: int, count: int, *, power_of_two: bool = False
    ) -> Real:
        """Return the levels, sorted whole numbers of at most 63: sums of two products then fit 16 bits.

        Args:
            values, index, importance, count: as in :func:`best_scales`.
            bits: their number is about ``2^bits``.
            power_of_two: whether scales will be powers of two.
        """

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        self.check_bits(scheme.bits)
        weight_extremes(weight, scheme)
        count = scheme.granularity.count(weight.shape)
        importance = self._importance(weight, inputs)
        values, index = weight.astype(np.float64).reshape(-1), flat_index(weight, scheme)
        two = scheme.power_of_two
        levels = self.levels(values, index, importance, scheme.bits, count, power_of_two=two)
        best = best_scales(values, index, levels, importance, count)
        if two:
            best = best_powers(best, level_errors(values, index, levels, importance, count))
        scale = stored_scales(best, levels[-1], two)
        codes = np.where(values == 0, 0, nearest_levels(values / scale[index], levels)).reshape(weight.shape)
        if inputs and weight.size:
            rounding = _Rounding.of(weight, scheme, inputs, levels)
            codes, scale = rounding.run(codes, scale)
        bits = 1 + max(1, int(np.abs(levels).max(initial=1))).bit_length()
        grid = scheme.model_copy(update={"bits": bits, "symmetric": True, "narrow_range": True})
        return Quantized(codes.astype(np.int8), scale, grid)

    def check_bits(self, bits: int) -> None:
        """Raise a SpecError if the scheme has no such form."""
        if bits not in self.widths:
            known = str(self.widths[0]) if len(self.widths) == 1 else f"{self.widths[0]} to {self.widths[-1]}"
            raise SpecError(f"scheme {self.name!r} has codes of {known} bits, got {bits}; set bits, or use affine")

    def whole(self, grid: Scheme) -> bool:
        """Return whether the levels are all codes of a grid, so that it may change as an affine one does."""
        return False

    def _importance(self, weight: Floats, inputs: InputStatistics | None) -> Real:
        """Return the mean square of what each weight multiplies, ``(weight.size,)``; 1 if that is not known."""
        if not inputs or not weight.size:
            return np.ones(weight.size)
        hessian: InputHessian = inputs[InputHessian]
        diagonal = np.diagonal(damped(hessian.matrix), axis1=1, axis2=2)[:, None, :]
        rows = np.broadcast_to(diagonal, hessian.window.rows(weight).shape)
        return hessian.window.weight(np.ascontiguousarray(rows), weight.shape).reshape(-1)


@dataclass(frozen=True)
class LevelGrid(CodeGrid):
    """Points ``step q`` with q among ``levels``, for rounding column by column."""

    levels: Real = field(default_factory=lambda: np.zeros(1))

    @classmethod
    def of(cls, step: Real, levels: Real) -> LevelGrid:
        """Return the grid of elements whose scales are ``step``."""
        return cls(step, np.zeros_like(step), int(levels[0]), int(levels[-1]), None, levels)

    def nearest(self, values: Real, at: slice | int) -> Real:
        return nearest_levels(values / self.step[:, at], self.levels)


@dataclass(frozen=True)
class _Rounding:
    """A weight as columns ``(groups, columns, rows)``, by descending diagonal of the Hessian."""

    weight: Real
    index: ScaleIndex
    matrix: Real
    levels: Real
    order: ScaleIndex
    window: Any
    shape: tuple[int, ...]
    power_of_two: bool

    @classmethod
    def of(cls, weight: Floats, scheme: Scheme, inputs: InputStatistics, levels: Real) -> _Rounding:
        hessian: InputHessian = inputs[InputHessian]
        window, matrix = hessian.window, damped(hessian.matrix)
        order = np.argsort(-np.diagonal(matrix, axis1=1, axis2=2), axis=1, kind="stable")
        group = np.arange(len(order))[:, None]
        columns = window.rows(weight).astype(np.float64).mT
        index = window.rows(flat_index(weight, scheme).reshape(weight.shape)).mT
        return cls(
            columns[group, order],
            index[group, order],
            matrix[group[..., None], order[..., None], order[:, None, :]],
            levels,
            order,
            window,
            weight.shape,
            scheme.power_of_two,
        )

    def run(self, codes: Real, scale: Floats) -> tuple[Real, Floats]:
        """Return codes and scales of less error of the layer's output, or what it got."""
        group = np.arange(len(self.order))[:, None]
        best = (self.window.rows(codes).mT[group, self.order], scale)
        least, factor = self._error(*best), HessianFactor.of(self.matrix)
        for _ in range(FEEDBACK_ROUNDS):
            grid = LevelGrid.of(scale.astype(np.float64)[self.index], self.levels)
            found, _ = round_columns(self.weight, grid, factor)
            found = descend(self.weight, found, grid, self.matrix, SWEEPS)
            scale = self._fitted(found, scale)
            error = self._error(found, scale)
            if error >= least:
                break
            best, least = (found, scale), error
        placed = np.empty_like(best[0])
        placed[group, self.order] = best[0]
        made: Real = self.window.weight(np.ascontiguousarray(placed.mT), self.shape)
        return made, best[1]

    def _error(self, codes: Real, scale: Floats) -> float:
        left = self.weight - scale.astype(np.float64)[self.index] * codes
        return float((left * (self.matrix @ left)).sum())

    def _fitted(self, codes: Real, scale: Floats) -> Floats:
        """Return the scales of least error for these codes, each for itself with the others as they are."""
        step, count = scale.astype(np.float64), scale.size
        left = self.weight - step[self.index] * codes
        slopes = sums_of(self.index.reshape(-1), (codes * (self.matrix @ left)).reshape(-1), count)
        own = codes * _curved(self.matrix, codes, self.index)
        curve = sums_of(self.index.reshape(-1), own.reshape(-1), count)
        fitted = step + np.where(curve > 0, slopes / np.maximum(curve, TINY), 0.0)
        kept = np.where(fitted > TINY, fitted, step)
        if self.power_of_two:
            # The error over one scale is a parabola.
            kept = best_powers(kept, lambda scale: (scale - kept) ** 2)
        return stored_scales(kept, float(self.levels[-1]), self.power_of_two)


def _curved(matrix: Real, codes: Real, index: ScaleIndex) -> Real:
    """Return ``sum_k H_jk q_k`` over the columns k that share the scale of column j, for each row."""
    # Rows whose columns share scales in the same way, as those of groups do, are computed at once.
    first = index - index.min(1, keepdims=True)
    found = np.empty_like(codes)
    pattern, of = np.unique(first.transpose(2, 0, 1).reshape(first.shape[2], -1), axis=0, return_inverse=True)
    for place, each in enumerate(pattern.reshape(-1, *first.shape[:2])):
        rows = of.reshape(-1) == place
        same = each[:, :, None] == each[:, None, :]
        found[..., rows] = (matrix * same) @ codes[..., rows]
    return found
