"""The scales of least squared error for given levels, exactly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from attar._src.core.float16 import SCALE_BITS, round_nearest
from attar._src.methods.quantize.ptq.solvers.code_grid import Real
from attar._src.methods.quantize.ptq.solvers.solver import TINY, sums_of

ScaleIndex = NDArray[np.int64]
#: Changes of codes that are sorted at once: about 0.5 GB.
_EVENTS = 1 << 22


def nearest_levels(values: Real, levels: Real) -> Real:
    """Return the nearest of sorted levels for each value, of two that are equally near the one farther from zero.

    Example:
        >>> nearest_levels(np.array([-0.2, 0.6, 3.0]), np.array([-1.0, 0.0, 1.0])).tolist()
        [0.0, 1.0, 1.0]
    """
    middles = (levels[1:] + levels[:-1]) / 2
    above, below = np.searchsorted(middles, values, "right"), np.searchsorted(middles, values, "left")
    nearest: Real = levels[np.where(values < 0, below, above)]
    return nearest


def best_scales(values: Real, index: ScaleIndex, levels: Real, importance: Real, count: int) -> Real:
    """Return the scales S of least ``sum h (w - S q)^2``, with q the level nearest to ``w / S``, ``(count,)``.

    As S falls from infinity, the code of w moves to the next level where S passes w over the middle of two levels; in
    between, the least error of these codes is ``sum h w^2 - A^2 / B`` with ``A = sum h w q`` and ``B = sum h q^2``, at
    S = A / B. All intervals are tried, in one sorted pass, so that no better scale exists. For the levels -1, 0 and 1
    this is the optimal threshold of ternary weights, for -1 and 1 the mean of ``|w|``. Scales of zeros alone are 0.

    Args:
        values: w, ``(n,)``.
        index: the scale of each, ``(n,)``.
        levels: sorted, ``(levels,)``.
        importance: h, ``(n,)``, 0 or above.
        count: number of scales.

    Example:
        >>> w, all_one = np.array([4.0, 3.0, -0.5]), np.zeros(3, np.int64)
        >>> best_scales(w, all_one, np.array([-1.0, 0.0, 1.0]), np.ones(3), 1).tolist()
        [3.5]
    """
    parts = min(count, values.size * len(levels) // _EVENTS + 1)
    if parts > 1:
        found = np.zeros(count)
        for scales in np.array_split(np.arange(count), parts):
            of = (index >= scales[0]) & (index <= scales[-1])
            found[scales] = best_scales(values[of], index[of] - scales[0], levels, importance[of], len(scales))
        return found
    start = nearest_levels(np.sign(values) * TINY, levels)
    products = sums_of(index, importance * values * start, count)
    squares = sums_of(index, importance * start**2, count)
    best, chosen = _gain(products, squares), _scale(products, squares)
    moves = [
        (value, place, h, level, farther)
        for sign, outward in ((1, levels), (-1, levels[::-1]))
        for value, place, h in [_of_sign(values, index, importance, sign)]
        for level, farther in pairwise(outward)
        if sign * (level + farther) > 0
    ]
    if not moves:
        return chosen
    passed = np.concatenate([value * 2 / (level + farther) for value, _, _, level, farther in moves])
    place = np.concatenate([each for _, each, _, _, _ in moves])
    more = np.concatenate([h * value * (farther - level) for value, _, h, level, farther in moves])
    wider = np.concatenate([h * (farther**2 - level**2) for _, _, h, level, farther in moves])
    order = np.lexsort((-passed, place))
    place = place[order]
    ends = np.cumsum(np.bincount(place, minlength=count))
    products, squares = (
        _running(steps[order], place, ends, first) for steps, first in ((more, products), (wider, squares))
    )
    gains, found = _gain(products, squares), _scale(products, squares)
    # Of each scale the first interval with the largest gain.
    ranked = np.lexsort((np.arange(len(gains)), -gains, place))
    firsts = ranked[np.r_[True, place[ranked][1:] != place[ranked][:-1]]] if len(ranked) else ranked
    better = firsts[gains[firsts] > best[place[firsts]]]
    chosen[place[better]] = found[better]
    return chosen


def _of_sign(values: Real, index: ScaleIndex, importance: Real, sign: int) -> tuple[Real, ScaleIndex, Real]:
    chosen = sign * values > 0
    return values[chosen], index[chosen], importance[chosen]


def _running(steps: Real, place: ScaleIndex, ends: ScaleIndex, first: Real) -> Real:
    """Return the sums of steps up to each of them within its place, from ``first`` on."""
    total = np.concatenate([[0.0], np.cumsum(steps)])
    before = total[np.concatenate([[0], ends[:-1]])]
    running: Real = total[1:] - before[place] + first[place]
    return running


def _gain(products: Real, squares: Real) -> Real:
    return np.where((squares > 0) & (products > 0), products**2 / np.maximum(squares, TINY), 0.0)


def _scale(products: Real, squares: Real) -> Real:
    return np.where((squares > 0) & (products > 0), products / np.maximum(squares, TINY), 0.0)


def best_powers(scale: Real, error: Callable[[Real], Real]) -> Real:
    """Return of the two powers of two beside each scale the one of less error, ``(count,)``; scales of 0 stay.

    The nearest in logarithms may clip two fifths of a range: of few levels one more than pays for that, of many none.

    Args:
        scale: S, ``(count,)``, 0 or above.
        error: scales ``(count,)`` -> the error of each.

    Example:
        >>> best_powers(np.array([0.75, 3.1]), lambda scale: (scale - np.array([0.7, 3.2])) ** 2).tolist()
        [0.5, 4.0]
    """
    lower = np.where(scale > 0, np.exp2(np.floor(np.log2(np.maximum(scale, TINY)))), 0.0)
    return np.where(error(lower) <= error(2 * lower), lower, 2 * lower)


def level_errors(values: Real, index: ScaleIndex, levels: Real, importance: Real, count: int) -> Callable[[Real], Real]:
    """Return scales ``(count,)`` -> ``sum h (w - S q)^2`` of each, with q the level nearest to ``w / S``.

    Args:
        values, index, levels, importance, count: as in :func:`best_scales`.
    """

    def errors(scale: Real) -> Real:
        step = np.maximum(scale, TINY)[index]
        return sums_of(index, importance * (values - step * nearest_levels(values / step, levels)) ** 2, count)

    return errors


def stored_scales(scale: Real, most: float, power_of_two: bool = False) -> NDArray[np.float32]:
    """Return scales as they are stored: to few binary digits, and normal where the weights are zero or too small.

    Args:
        scale: ``(count,)``.
        most: the largest level; the scale of a tensor of zeros is ``1 / most``.
        power_of_two: whether only powers of two will do; the scales are some, except where weights are zero.
    """
    small = scale < TINY
    normal = np.where(small, scale[~small].max(initial=0.0) or 1 / most, scale)
    if power_of_two:
        return np.exp2(np.rint(np.log2(normal))).astype(np.float32)
    return round_nearest(normal.astype(np.float32), SCALE_BITS)
