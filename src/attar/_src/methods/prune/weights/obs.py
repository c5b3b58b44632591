"""Remaining weights that make up for those removed, under the Hessian of what they multiply.

Removing elements P of a row w changes the mean square of its output by ``d^T H d / 2``, ``d = w' - w``, with H the
Hessian of the inputs (:class:`~attar._src.model.statistics.InputHessian`). With S the elements that remain, the best
row with zeros at P is

    w'_S = w_S + [H_SS]^-1 H_SP w_P,

and removing one element j more costs ``w'_j^2 / (2 [[H_SS]^-1]_jj)``. Hassibi and Stork 1993, "Second order derivatives
for network pruning: optimal brain surgeon"; for layers Frantar and Alistarh 2022, "Optimal brain compression" (arXiv
2208.11580, section 3), where elements are removed one by one. Here some are removed at a time, and what remains is
solved anew, so that nothing accumulates.

For rows too long for that, columns are swept once: each column makes up for what was removed before it (Frantar and
Alistarh 2023, "SparseGPT" (arXiv 2301.00774), section 3 and algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

#: Elements of the matrices that are factorized at once: 128 MiB of float64.
_MATRIX_ELEMENTS = 1 << 24
#: Columns of which the sweep chooses those to prune at once.
BLOCK = 128


def remaining_rows(rows: torch.Tensor, pruned: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Return the rows with zeros where ``pruned`` that change the output least, float64 ``(groups, rows, columns)``.

    Args:
        rows: float64, the rows as they were.
        pruned: bool, the same shape.
        hessian: positive definite, float64 ``(groups, columns, columns)``.

    Example:
        H = [[2, 1], [1, 2]], w = (1, 1), the first is removed: (0, 1 + 1/2).
    """
    found = torch.empty_like(rows)
    for group, part, matrix in _parts(pruned, hessian):
        lower = torch.linalg.cholesky(matrix)
        aims = (rows[group, part] @ hessian[group]).masked_fill(pruned[group, part], 0)
        found[group, part] = torch.cholesky_solve(aims[..., None], lower)[..., 0]
    return found.masked_fill_(pruned, 0)


def remaining_columns(rows: torch.Tensor, left: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Return the rows of which only some columns are left, of all the same: :func:`remaining_rows` of one mask.

    Args:
        rows: float64 ``(rows, columns)``.
        left: bool ``(columns,)``.
        hessian: positive definite, float64 ``(columns, columns)``.

    Example:
        H = [[2, 1], [1, 2]], w = (1, 1), the first column is removed: (0, 1 + 1/2).
    """
    found = torch.zeros_like(rows)
    lower = torch.linalg.cholesky(hessian[left][:, left])
    found[:, left] = torch.cholesky_solve((rows @ hessian[:, left]).mT, lower).mT
    return found


def row_curvature(pruned: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Return ``1 / [[H_SS]^-1]_jj`` of the elements of each row that remain; 1 of the others."""
    found = torch.empty(pruned.shape, dtype=torch.float64)
    if not pruned.any():
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        return (1 / inverse.diagonal(dim1=1, dim2=2))[:, None].expand(pruned.shape).contiguous()
    for group, part, matrix in _parts(pruned, hessian):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        found[group, part] = 1 / inverse.diagonal(dim1=1, dim2=2)
    return found


def _parts(pruned: torch.Tensor, hessian: torch.Tensor) -> Iterator[tuple[int, slice, torch.Tensor]]:
    """Yield group, rows and the Hessians of these rows, with those of the identity where elements are pruned."""
    groups, count, columns = pruned.shape
    step = max(1, _MATRIX_ELEMENTS // max(columns * columns, 1))
    for group in range(groups):
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            left = (~pruned[group, part]).double()
            matrix = hessian[group] * left[:, :, None] * left[:, None, :]
            matrix.diagonal(dim1=1, dim2=2).add_(1 - left)
            yield group, part, matrix


#: Rows of some columns, and what ``1 / [H^-1]_jj`` is of these columns -> which elements are pruned.
ColumnChoice = Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor]


def sweep(rows: torch.Tensor, hessian: torch.Tensor, choose: ColumnChoice, block: int = BLOCK) -> torch.Tensor:
    """Return rows with zeros where ``choose`` says so, column by column, float64 ``(groups, rows, columns)``.

    Args:
        rows: float64, in the order in which columns are pruned.
        hessian: of these columns, positive definite.
        choose: called for each ``block`` of columns with their present values.
        block: columns that are chosen from at once.
    """
    rows, kept = rows.clone(), torch.empty_like(rows)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    columns = rows.shape[2]
    for start in range(0, columns, block):
        at = slice(start, min(start + block, columns))
        own = factor[:, at, at]
        diagonal = own.diagonal(dim1=1, dim2=2)
        pruned = choose(rows[..., at], (1 / diagonal.square())[:, None].expand_as(rows[..., at]), at)
        errors = torch.empty_like(rows[..., at])
        for place in range(at.stop - at.start):
            column = rows[..., start + place]
            kept[..., start + place] = column.masked_fill(pruned[..., place], 0)
            errors[..., place] = (column - kept[..., start + place]) / diagonal[:, None, place]
            rows[..., start + place : at.stop] -= errors[..., place, None] * own[:, None, place, place:]
        rows[..., at.stop :] -= errors @ factor[:, at, at.stop :]
    return kept
