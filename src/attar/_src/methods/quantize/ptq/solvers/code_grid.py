"""Points on which elements of a weight are rounded, and the prices of their codes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]


@dataclass(frozen=True)
class CodeGrid:
    """Points ``step (q - zero)`` with ``low <= q <= high`` of some elements.

    Attributes:
        step, zero: of every element, ``(groups, columns, rows)``, or ``(groups, 1, rows)`` where all columns of a row
            share them.
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
        return np.clip(np.rint(values / _part(self.step, at)) + _part(self.zero, at), self.low, self.high)

    def choose(self, aims: Real, column: int, weights: Real, present: Real | None = None) -> Real:
        """Return the codes q of one column with the least ``weights (aims - q')^2 + price(q)``.

        Of all codes, the nearest, its neighbours, that of zero and the ``present`` ones are compared.
        """
        best = self.nearest(aims, column)
        if self.prices is None:
            return best
        zero = np.broadcast_to(self.zeros(column), best.shape)
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

    def part(self, columns: slice) -> CodeGrid:
        """Return the grid of some neighbouring columns."""
        return replace(self, step=_part(self.step, columns), zero=_part(self.zero, columns))

    def values(self, codes: Real, at: slice | int) -> Real:
        """Return the real values of codes."""
        return _part(self.step, at) * (codes - _part(self.zero, at))

    def zeros(self, column: int) -> Real:
        """Return the codes of zero in a column."""
        return _part(self.zero, column)


def _part(array: Real, at: slice | int) -> Real:
    shared = array.shape[1] == 1
    part: Real = array[:, (at if not shared else slice(None) if isinstance(at, slice) else 0)]
    return part
