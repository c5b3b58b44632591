"""Fit a table of the context coder to the codes of a tensor."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Symbols
from attar._src.coding.contexts.table import LONGEST_PERIOD, LONGEST_ROW, ContextTable, fitting_table
from attar._src.core.scheme import Shape

_SAMPLE = 1 << 16  # symbols that weights are fitted to
_WIDEST, _RECENT, _SLOWEST = 64, 64, 5

_Floats = NDArray[np.float64]


def fit_table(symbols: Symbols, shape: Shape, alphabet: int) -> ContextTable:
    """Return a table for the symbols of a tensor, shape ``(n,)``, n being the product of ``shape``.

    The width is the distance from 2 to 64 at which values correlate most: 5 in kernels of 5 x 5, 28 in a perceptron
    that reads images of 28 x 28, 8 behind a flattened map of 8 x 8. Weights minimise the squared errors of value and
    magnitude, each divided by the magnitude that was expected, as scales differ within a tensor.
    """
    row, period = min(max(prod(shape[1:]), 1), LONGEST_ROW), prod(shape[2:])
    histogram = np.bincount(symbols, minlength=alphabet)
    table = fitting_table(histogram, row=row, period=period if 1 <= period <= LONGEST_PERIOD else 1)
    values = symbols[:_SAMPLE].astype(np.float64) - table.center
    if not values.any():
        return table
    sizes, width = np.abs(values), _width(values)
    left, second, right, up, further, above = (_before(values, lag) for lag in (1, 2, width - 1, width, width + 1, row))
    signed = np.stack([left, up, right, further], 1)
    near = [np.abs(left), np.abs(second), np.abs(up), np.abs(right) + np.abs(further), np.abs(above)]
    magnitudes = np.stack([*near, _recent(sizes), _columns(sizes, row)], 1)
    weights, least = np.ones_like(sizes), 0.05 * sizes.mean() ** 2
    for _ in range(2):
        expected = np.maximum(magnitudes @ _solve(magnitudes, sizes, weights), 0)
        weights = 1 / (expected**2 + least)
    v0, v1, v2, v3 = _sixteenths(_solve(signed, values, weights), -8, 7)
    w0, w1, w2, w3, w4, w5, w6 = _sixteenths(_solve(magnitudes, sizes, weights), 0, 15)
    return replace(table, width=width, values=(v0, v1, v2, v3), sizes=(w0, w1, w2, w3, w4, w5, w6))


def _before(numbers: _Floats, lag: int) -> _Floats:
    """Return the number at distance ``lag`` before each, 0 where there is none."""
    moved = np.zeros_like(numbers)
    moved[lag:] = numbers[:-lag]
    return moved


def _width(values: _Floats) -> int:
    """Return the distance at which values correlate most.

    2 has to be better than the others by 3 % of the variance, as what lies there is close to the left neighbour, too.
    """
    lags = range(2, max(3, min(_WIDEST, values.size)))
    doubt = 0.03 * float(values @ values)
    return max(lags, key=lambda lag: float(values[lag:] @ values[:-lag]) - doubt * (lag == 2))


def _recent(sizes: _Floats) -> _Floats:
    """Return the mean of the 64 magnitudes before each, those before the first being 0."""
    sums = np.concatenate([[0.0], np.cumsum(sizes)])[:-1]
    return (sums - _before(sums, _RECENT)) / _RECENT


def _columns(sizes: _Floats, row: int) -> _Floats:
    """Return the mean of the magnitudes in the same column, of which later rows weigh more."""
    rows = np.pad(sizes, (0, -sizes.size % row)).reshape(-1, row)
    means = np.zeros_like(rows)
    for place in range(1, len(rows)):
        rate = min(place.bit_length(), _SLOWEST)
        means[place] = means[place - 1] + (rows[place - 1] - means[place - 1]) / 2**rate
    return means.reshape(-1)[: sizes.size]


def _solve(inputs: _Floats, wanted: _Floats, weights: _Floats) -> _Floats:
    """Return the weighted least squares solution, with a little of ridge, as columns may be equal or zero."""
    scaled = (inputs * weights[:, None]).T
    gram = scaled @ inputs
    ridge = 1e-6 * np.eye(len(gram)) * (1 + 1e-3 * np.trace(gram) / len(gram))
    return np.linalg.solve(gram + ridge, scaled @ wanted)


def _sixteenths(weights: _Floats, low: int, high: int) -> list[int]:
    rounded: list[int] = np.clip(np.rint(16 * weights), low, high).astype(int).tolist()
    return rounded
