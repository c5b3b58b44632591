"""Fit a table of the context coder to the codes of a tensor."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Symbols
from attar._src.coding.contexts.table import LONGEST_PERIOD, LONGEST_ROW, ContextTable, fitting_table
from attar._src.core.scheme import Shape

_SAMPLE = 1 << 16  # symbols that weights are fitted to
_WIDEST, _RECENT, _SLOWEST = 64, 64, 5
_PARTS = 3  # of a weight, 12 bits or more each

_Floats = NDArray[np.float64]


def fit_table(symbols: Symbols, shape: Shape, alphabet: int) -> ContextTable:
    """Return a table for the symbols of a tensor, shape ``(n,)``, n being the product of ``shape``.

    The width is the distance from 2 to 64 at which values correlate most: 5 in kernels of 5 x 5, 28 in a perceptron
    that reads images of 28 x 28, 8 behind a flattened map of 8 x 8. Weights minimise the squared errors of value and
    magnitude, each divided by the magnitude that was expected, as scales differ within a tensor.
    """
    row, period = min(max(math.prod(shape[1:]), 1), LONGEST_ROW), math.prod(shape[2:])
    histogram = np.bincount(symbols, minlength=alphabet)
    table = fitting_table(histogram, row=row, period=period if 1 <= period <= LONGEST_PERIOD else 1)
    values = symbols[:_SAMPLE].astype(np.float64) - table.center
    if not values.any():
        return table
    sizes, width = np.abs(values), _width(values)
    left, second, right, up, further, above = (_before(values, lag) for lag in (1, 2, width - 1, width, width + 1, row))
    signed = np.stack([left, up, right, further], 1)
    near = [np.abs(left), np.abs(second), np.abs(up), np.abs(right) + np.abs(further), np.abs(above)]
    means = [np.rint(16 * mean) / 16 for mean in (_recent(sizes), _columns(sizes, row))]
    magnitudes = np.stack([*near, *means], 1)
    weights, least = np.ones_like(sizes), 0.05 * np.square(sizes.mean())
    for _ in range(2):
        expected = np.zeros_like(sizes)
        for column, weight in zip(magnitudes.T, _solve(magnitudes, sizes, weights), strict=True):
            expected += column * weight
        weights = 1 / (np.square(np.maximum(expected, 0)) + least)
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


def _solve(inputs: _Floats, wanted: _Floats, weights: _Floats) -> list[float]:
    """Return the weighted least squares solution, with a little of ridge, as columns may be equal or zero.

    It is the same on every machine, and so are the bytes of a file: inputs are sixteenths, and weights are taken apart
    into parts of so few digits that a sum of products has at most 53 bits, and no order of summation rounds one. What
    is left is small and done in one order.
    """
    top = 16 * max(float(np.abs(inputs).max()), float(wanted.max()), 1.0)
    gram, right = np.zeros((inputs.shape[1], inputs.shape[1])), np.zeros(inputs.shape[1])
    for _ in range(_PARTS):
        unit = 2.0 ** math.frexp(float(weights.max()) * top**2 * len(weights) / 2**52)[1]
        part = np.floor(weights / unit) * unit
        scaled = (inputs * part[:, None]).T
        gram += scaled @ inputs
        right += scaled @ wanted
        weights = weights - part
    rows = [[*row, aim] for row, aim in zip(gram.tolist(), right.tolist(), strict=True)]
    ridge = 1e-6 * (1 + 1e-3 * sum(row[place] for place, row in enumerate(rows)) / len(rows))
    for place, row in enumerate(rows):
        row[place] += ridge
    return _eliminate(rows)


def _eliminate(rows: list[list[float]]) -> list[float]:
    """Solve a positive definite system, each row with its right side behind it, by Gaussian elimination."""
    for place, row in enumerate(rows):
        for lower in rows[place + 1 :]:
            factor = lower[place] / row[place]
            lower[place:] = [number - factor * above for number, above in zip(lower[place:], row[place:], strict=True)]
    found: list[float] = []
    for row in reversed(rows):
        *numbers, aim = row[len(rows) - 1 - len(found) :]
        for number, known in zip(numbers[1:], found, strict=True):
            aim -= number * known
        found.insert(0, aim / numbers[0])
    return found


def _sixteenths(weights: list[float], low: int, high: int) -> list[int]:
    return [min(max(round(16 * weight), low), high) for weight in weights]
