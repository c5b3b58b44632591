"""Codebooks: the levels of least error."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from attar._src.methods.quantize.ptq.schemes.level_scheme import LevelScheme
from attar._src.methods.quantize.ptq.schemes.scales import ScaleIndex, best_powers, level_errors, nearest_levels
from attar._src.methods.quantize.ptq.solvers.code_grid import Real
from attar._src.methods.quantize.ptq.solvers.solver import TINY, sums_of

#: Levels that the largest weight of a scale may begin at. With 56 and 48 grids of 3 and 4 bits are among the codebooks.
_TOPS = (63, 56, 48, 32)
#: Times that levels and scales are fitted in turns.
_TURNS = 4


class BestLevels(LevelScheme):
    """The ``2^bits`` whole numbers from -63 to 63 that are the best levels of a tensor, with a scale for each group.

    k-means in one dimension, weighted by the mean square of what a weight multiplies, as in SqueezeLLM (Kim et al.
    2023, arXiv 2306.07629, section 4.1, which weighs by the gradients of the loss), solved exactly by dynamic
    programming (Wang, Song, "Ckmeans.1d.dp", The R Journal 3/2, 2011) instead of from random starts. As levels are
    whole numbers, 127 are all there are, so that the programming takes the same time for every tensor, and integer
    kernels can read them. Levels and scales are fitted in turns.

    Should be preferred at 3 and 4 bits for weights that are not spread evenly; files of it compress less than those of
    an affine grid, as its levels are used more evenly.
    """

    name: ClassVar[str] = "codebook"
    widths: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6)

    def levels(
        self, values: Real, index: ScaleIndex, importance: Real, bits: int, count: int, *, power_of_two: bool = False
    ) -> Real:
        reach = np.zeros(count)
        np.maximum.at(reach, index, np.abs(values))
        reach = np.where(reach > TINY, reach, 1.0)
        best, chosen = np.inf, np.arange(-1.0, 2.0)
        used = values != 0
        values, index, importance = values[used], index[used], importance[used]
        for top in _TOPS if len(values) else ():
            scale, before = reach / top, np.inf
            if power_of_two:
                scale = np.exp2(np.rint(np.log2(scale)))
            for _ in range(_TURNS):
                step = scale[index]
                levels = best_whole_levels(values / step, importance * step**2, 1 << bits)
                codes = nearest_levels(values / step, levels)
                products = sums_of(index, importance * values * codes, count)
                squares = sums_of(index, importance * codes**2, count)
                scale = np.where(products > TINY, products / np.maximum(squares, TINY), scale)
                if power_of_two:
                    scale = best_powers(scale, level_errors(values, index, levels, importance, count))
                    codes = nearest_levels(values / scale[index], levels)
                error = float(importance @ (values - scale[index] * codes) ** 2)
                if error < best:
                    best, chosen = error, levels
                if error >= before:
                    break
                before = error
        return chosen


def best_whole_levels(values: Real, importance: Real, number: int, most: int = 63) -> Real:
    """Return the sorted whole numbers from ``-most`` to ``most`` with the least ``sum h (v - nearest)^2``.

    Dynamic programming over the last level: the least error of all values up to level q, with j levels, is the least
    over p < q of that with p and j - 1 levels, plus what lies between p and q, each at the nearer of both.

    Args:
        values: v, ``(n,)``.
        importance: h, ``(n,)``.
        number: of levels, at most ``2 most + 1``.

    Example:
        >>> best_whole_levels(np.array([0.9, 1.2, 7.0]), np.ones(3), 2, most=7).tolist()
        [1.0, 7.0]
    """
    places = np.arange(-most, most + 1)
    # Sums of h, h v and h v^2 of the values below -most, -most + 1/2, ..., most.
    half = np.clip(np.floor(values * 2) + 2 * most + 1, 0, 4 * most + 1).astype(np.int64)
    sums = [np.cumsum(sums_of(half, importance * values**power, 4 * most + 2)) for power in range(3)]

    def error(start: ScaleIndex, stop: ScaleIndex, at: ScaleIndex) -> Real:
        """Return the error of the values from half step ``start`` to ``stop``, rounded to ``at``."""
        h, hv, hvv = (each[stop] - each[start] for each in sums)
        found: Real = np.asarray(hvv - 2 * at * hv + at**2 * h)
        return found

    p, q = places[:, None], places[None, :]
    own, middle = 2 * (places + most), p + q + 2 * most
    between = np.where(
        q > p, error(own[:, None], np.maximum(middle, own[:, None]), p) + error(middle, own[None, :], q), np.inf
    )
    least, steps = error(np.zeros_like(own), own, places), list[ScaleIndex]()
    # Below -most there are values too.
    least += sums[2][0] - 2 * places * sums[1][0] + places**2 * sums[0][0]
    for _ in range(number - 1):
        tried = least[:, None] + between
        steps.append(np.argmin(tried, 0))
        least = np.min(tried, 0)
    last = int(np.argmin(least + error(own, np.full_like(own, 4 * most + 1), places)))
    found = [last]
    for step in reversed(steps):
        found.append(int(step[found[-1]]))
    return np.asarray(places[found[::-1]], np.float64)
