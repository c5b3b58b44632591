"""The inner loops of rounding column by column: in C where the extension is there (``attar/c/columns.c``), or in numpy.

Both give the same bits: no product is fused with a sum, and sums are taken in the order of the columns. C is ten times
as fast. The extension is built when Attar is installed on a machine with a C compiler. With ``ATTAR_NO_NATIVE=1`` in
the environment it is not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attar._src.coding.native import native_module
from attar._src.methods.quantize.ptq.solvers.code_grid import CodeGrid, Real

_columns: Any = native_module("attar._src.methods.quantize.ptq.solvers._columns")
IN_C = _columns is not None


def round_block(weight: Real, aims: Real, unit: Real, curve: Real, grid: CodeGrid) -> tuple[Real, Real, Real]:
    """Round columns one after the other: each adds its error, times its row of ``unit``, to the aims of later ones.

    Args:
        weight: ``(groups, columns, rows)``; zeros stay zero.
        aims: of the same shape, what the columns before these make of the weight; they are changed.
        unit: upper triangular, ``(groups, columns, columns)``.
        curve: what the square of an error costs, ``(groups, columns)``.
        grid: of these columns.

    Returns:
        Codes, errors ``weight - value``, and costs ``curve (aim - value)^2 + price``, of the shape of the weight.
    """
    codes, left, costs = np.empty((3, *weight.shape))
    if IN_C and type(grid) is CodeGrid:
        _columns.round_block(
            *_given(weight, grid), weight, aims, *_whole(unit, curve), *_whole(grid.step, grid.zero), codes, left, costs
        )
        return codes, left, costs
    for column in range(weight.shape[1]):
        aim, one = aims[:, column], weight[:, column]
        code = np.where(one == 0, grid.zeros(column), grid.choose(aim, column, curve[:, column, None]))
        codes[:, column] = code
        left[:, column] = one - grid.values(code, column)
        costs[:, column] = grid.cost(aim, code, column, curve[:, column, None])
        aims[:, column + 1 :] += unit[:, column, column + 1 :, None] * left[:, column, None]
    return codes, left, costs


def descend_block(weight: Real, left: Real, slopes: Real, matrix: Real, grid: CodeGrid, codes: Real) -> Real | None:
    """Give each column in turn the codes of least cost, and return how the values moved; None if none did.

    Args:
        weight: ``(groups, columns, rows)``; zeros stay zero.
        left: ``weight - value``, changed.
        slopes: H times the errors of all columns, in these columns; they are changed.
        matrix: H of these columns, ``(groups, columns, columns)``.
        grid: of these columns.
        codes: changed.
    """
    moves = np.zeros_like(weight)
    if IN_C and type(grid) is CodeGrid:
        (matrix,) = _whole(matrix)
        given = _given(weight, grid)
        changed = _columns.descend_block(
            *given, weight, left, slopes, matrix, *_whole(grid.step, grid.zero), codes, moves
        )
        return moves if changed else None
    changed = False
    for column in range(weight.shape[1]):
        curve, one, before = matrix[:, column, column, None], weight[:, column], codes[:, column]
        aim = one - left[:, column] + slopes[:, column] / curve
        code = np.where(one == 0, grid.zeros(column), grid.choose(aim, column, curve, before))
        if (code == before).all():
            continue
        changed = True
        moves[:, column] = grid.values(before, column) - grid.values(code, column)
        left[:, column] += moves[:, column]
        codes[:, column] = code
        slopes[:, column + 1 :] += matrix[:, column + 1 :, column, None] * moves[:, column, None]
    return moves if changed else None


def _given(weight: Real, grid: CodeGrid) -> tuple[Any, ...]:
    return *weight.shape, float(grid.low), float(grid.high), None if grid.prices is None else _whole(grid.prices)[0]


def _whole(*arrays: Real) -> tuple[Real, ...]:
    """Return arrays as contiguous ones."""
    return tuple(np.ascontiguousarray(each, np.float64) for each in arrays)
