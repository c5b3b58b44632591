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

from attar._src.methods.quantize.ptq.solvers.code_grid import CodeGrid, Real
from attar._src.methods.quantize.ptq.solvers.column_blocks import descend_block, round_block

#: Columns between two products with everything before them.
_BLOCK = 64


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
        at = slice(start, min(start + _BLOCK, weight.shape[1]))
        aims = np.ascontiguousarray(weight[:, at] + factor.unit[:, :start, at].mT @ left[:, :start])
        if carried is not None:
            aims += carried[:, at]
        own = factor.part(at)
        block = round_block(np.ascontiguousarray(weight[:, at]), aims, own.unit, own.weights, grid.part(at))
        codes[:, at], left[:, at], errors[:, at] = block
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
        for start in range(0, weight.shape[1], _BLOCK):
            # Within a block each move counts at once; all other columns hear of the block's moves in one product.
            at = slice(start, min(start + _BLOCK, weight.shape[1]))
            block = [np.ascontiguousarray(each[:, at]) for each in (left, codes)]
            part, near = np.ascontiguousarray(weight[:, at]), slopes[:, at].copy()
            moves = descend_block(part, block[0], near, matrix[:, at, at], grid.part(at), block[1])
            if moves is not None:
                changed = True
                left[:, at], codes[:, at] = block
                rows = np.flatnonzero(moves.any((0, 1)))
                if len(rows) > moves.shape[2] // 2:
                    slopes += matrix[:, :, at] @ moves
                else:
                    slopes[:, :, rows] += matrix[:, :, at] @ moves[:, :, rows]
        if not changed:
            break
    return codes
