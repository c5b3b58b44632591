"""Rounding column by column: each column takes over what the rounding of the columns before it did to the output.

Rounding a row w to q changes the output of its layer by ``e^T H e / 2`` in the mean square, with e = w - q and H the
Hessian of the inputs (:class:`~attar._src.model.statistics.InputHessian`). With H = U D U^T, U upper triangular with
ones on its diagonal,

    e^T H e = sum_j D_j (v_j - q_j)^2,       v_j = w_j + sum_{k<j} e_k U_kj,

so that q_j = round(v_j), one after the other, makes each term small. This is GPTQ (Frantar et al. 2023, arXiv
2210.17323, algorithm 1) in the form of Chee, Cai, Kuleshov, De Sa, "QuIP", NeurIPS 2023 (arXiv 2307.13304, section 3.2
and theorem 6): D_j is GPTQ's ``1 / [H^-1]_jj`` of the columns not yet rounded, and no inverse is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
#: Columns between two products with everything before them.
_BLOCK = 32


@dataclass(frozen=True)
class HessianFactor:
    """H = U D U^T of each group of a layer.

    Attributes:
        unit: U, ``(groups, d, d)``, upper triangular with ones on the diagonal.
        weights: D, ``(groups, d)``, positive.
    """

    unit: Real
    weights: Real

    @classmethod
    def of(cls, matrix: Real) -> HessianFactor:
        """Return the factor of positive definite matrices, ``(groups, d, d)``."""
        lower = np.linalg.cholesky(matrix[:, ::-1, ::-1])
        upper = lower[:, ::-1, ::-1]
        diagonal = np.diagonal(upper, axis1=1, axis2=2)
        return cls(upper / diagonal[:, None, :], diagonal**2)

    def part(self, columns: slice) -> HessianFactor:
        """Return the factor of some neighbouring columns."""
        return HessianFactor(self.unit[:, columns, columns], self.weights[:, columns])


@dataclass(frozen=True)
class CodeGrid:
    """Points ``step (q - zero)`` with ``low <= q <= high`` of some elements.

    Attributes:
        step, zero: an array that broadcasts against the elements.
        low, high: the smallest and the largest code.
        prices: what each code from ``low`` to ``high`` adds to the error that is minimized; None for nothing.
    """

    step: Real
    zero: Real
    low: int
    high: int
    prices: Real | None = None

    def nearest(self, values: Real, at: slice | int) -> Real:
        """Return the codes nearest to the values of one column or several."""
        return np.clip(np.rint(values / self.step[:, at]) + self.zero[:, at], self.low, self.high)

    def choose(self, aims: Real, column: int, weights: Real, present: Real | None = None) -> Real:
        """Return the codes q of one column with the least ``weights (aims - q')^2 + price(q)``.

        Of all codes, the nearest, its neighbours, that of zero and the ``present`` ones are compared.
        """
        best = self.nearest(aims, column)
        if self.prices is None:
            return best
        zero = np.broadcast_to(self.zero[:, column], best.shape)
        # All at once: one after the other, calls of numpy take most of the time of a layer of a hundred rows.
        codes = np.stack(
            [best, np.maximum(best - 1, self.low), np.minimum(best + 1, self.high), zero]
            + ([] if present is None else [present])
        )
        # Of equal ones the first, the nearest.
        chosen: Real = np.choose(self.cost(aims, codes, column, weights).argmin(0), codes)
        return chosen

    def cost(self, aims: Real, codes: Real, column: int, weights: Real) -> Real:
        """Return ``weights (aims - q')^2 + price(q)`` of codes of one column, of several at once along a first axis."""
        error: Real = weights * (aims - self.values(codes, column)) ** 2
        return error if self.prices is None else error + self.prices[(codes - self.low).astype(np.intp)]

    def values(self, codes: Real, at: slice | int) -> Real:
        """Return the real values of codes."""
        return self.step[:, at] * (codes - self.zero[:, at])


def round_columns(
    weight: Real, grid: CodeGrid, factor: HessianFactor, carried: Real | None = None
) -> tuple[Real, Real]:
    """Return codes and what they cost, ``D_j (v_j - q_j)^2`` and their prices, both in the shape of ``weight``.

    Args:
        weight: ``(groups, columns, rows)``, columns in the order in which they are rounded. Zeros stay zero.
        grid: of the same shape.
        factor: of these columns.
        carried: what columns before these add to v, in the shape of ``weight``.
    """
    codes, left, errors = np.empty((3, *weight.shape))
    for start in range(0, weight.shape[1], _BLOCK):
        stop = min(start + _BLOCK, weight.shape[1])
        aims = weight[:, start:stop] + factor.unit[:, :start, start:stop].mT @ left[:, :start]
        if carried is not None:
            aims += carried[:, start:stop]
        for column in range(start, stop):
            aim = aims[:, column - start]
            aim += (factor.unit[:, start:column, column, None].mT @ left[:, start:column])[:, 0]
            code = grid.choose(aim, column, factor.weights[:, column, None])
            codes[:, column] = np.where(weight[:, column] == 0, grid.zero[:, column], code)
            value = grid.values(codes[:, column], column)
            left[:, column] = weight[:, column] - value
            errors[:, column] = grid.cost(aim, codes[:, column], column, factor.weights[:, column, None])
    return codes, errors


def descend(weight: Real, codes: Real, grid: CodeGrid, matrix: Real, sweeps: int) -> Real:
    """Return codes after at most ``sweeps`` over the columns, each of which lowers ``e^T H e`` and the prices together.

    Each column in turn takes the codes nearest to the minimum over it with the others fixed,
    ``w_j + sum_{k != j} e_k H_kj / H_jj``; a sweep that changes none is the last.

    Args:
        weight, grid: as in :func:`round_columns`.
        codes: to begin with, in the shape of ``weight``.
        matrix: H, ``(groups, columns, columns)``.
        sweeps: largest number of sweeps.
    """
    codes = codes.copy()
    left = weight - grid.values(codes, slice(None))
    slopes = matrix @ left
    for _ in range(sweeps):
        changed = False
        for column in range(weight.shape[1]):
            diagonal = matrix[:, column, column, None]
            aim = weight[:, column] - left[:, column] + slopes[:, column] / diagonal
            code = np.where(
                weight[:, column] == 0, grid.zero[:, column], grid.choose(aim, column, diagonal, codes[:, column])
            )
            step = grid.values(codes[:, column], column) - grid.values(code, column)
            if (code != codes[:, column]).any():
                changed = True
                codes[:, column] = code
                left[:, column] += step
                slopes += matrix[:, :, column, None] * step[:, None, :]
        if not changed:
            break
    return codes
