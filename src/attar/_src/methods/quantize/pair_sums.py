"""Weights whose products fit 16 bits in pairs, so that the fast integer kernels of every processor are exact.

On x86 without VNNI the fast kernels add products of uint8 and int8 in pairs of 16 bits, and saturate if two codes a
and b of one sign have |a| + |b| > L, L = 128 for inputs up to 255 (``runtime.accumulator``). Codes up to 64 never do;
codes up to 127 may in a few pairs. In a channel that has one the step S grows by a factor n / L, and its weights w are
rounded to the wider step. With x = |w| L / (S n), the codes are, but for their signs,

    round(x),        round((x_a - x_b + L) / 2) and L less that        for a pair with round(x_a) + round(x_b) > L

which have the least squared error of all that fit. n is the one of least error from L to the largest |w_a| + |w_b| in
steps S: with n = L a pair (66, 64) becomes (65, 63) and all others stay; with n = 160 a pair (100, 60) becomes (80, 48)
and all others are rounded to the wider step. Normal weights lose 2.2 dB so; 4.1 dB if the codes were rounded again.

The weights are those before rounding if they are known. On a trained grid the codes are what the network has learned,
and take their place; so do those of a solver in a channel where it chose others than the nearest.

Errors are sums of whole numbers, so that equal weights become equal files on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from attar._src.core.float16 import SCALE_BITS, from_half, round_nearest, round_up, to_half
from attar._src.core.tensors import Quantized
from attar._src.runtime.accumulator import largest_pairs, neighbours

_TOP = 127  # the largest code
_TRIED = 8  # factors n whose errors are computed of all weights
_BLOCK = 1 << 15  # weights that are fitted at once, in the cache


def fit_pairs(
    tensor: Quantized, axis: int, limit: int, groups: int = 1, values: NDArray[np.float32] | None = None
) -> tuple[Quantized, int]:
    """Return a weight of which no pair exceeds ``limit``, and the number of output channels that had one.

    Args:
        tensor: on a symmetric grid, with a single scale or one for each output channel.
        axis: of the output channels.
        limit: the largest |a| + |b| of neighbours of one sign.
        groups: of a convolution.
        values: what was rounded to ``tensor``; None if that is not known.
    """
    unsafe = largest_pairs(neighbours(tensor.codes, axis, groups)) > limit
    if not unsafe.any():
        return tensor, 0
    codes, own = np.moveaxis(tensor.codes, axis, 0).astype(np.int8), tensor.scale
    short = bool((round_up(own) == own).all())  # scales of few digits stay so
    order = _order(codes.shape, groups)
    if own.size == 1:  # one line, the weights of a scale, has all channels
        order = (order + codes[0].size * np.arange(len(codes))[:, None, None]).reshape(-1, 2)
    fitted, scale = codes.reshape(own.size, -1), own.copy()
    floating = None if values is None else np.moveaxis(values, axis, 0).reshape(fitted.shape)
    chosen = np.flatnonzero(unsafe) if own.size > 1 else np.arange(1)
    for rows in np.array_split(chosen, min(chosen.size, -(-chosen.size * fitted.shape[1] // _BLOCK))):
        at = _positions(fitted[rows], own[rows], None if floating is None else floating[rows])
        lines = _Lines.of(at, order, limit)
        # A power of two stays one; all pairs fit then.
        factors = np.full(len(rows), 2 * limit) if tensor.scheme.power_of_two else lines.best_factors()
        wider = (own[rows] * (factors / limit)).astype(np.float32)
        if short:
            wider = round_nearest(wider, SCALE_BITS)
        if tensor.scale_dtype != "f32":
            wider = from_half(to_half(wider, tensor.scale_dtype), tensor.scale_dtype)
        magnitudes = lines.codes(lines.sizes * (own[rows].astype(np.float64) / wider)[:, None])
        fitted[rows], scale[rows] = np.sign(at) * magnitudes, wider
    moved = np.ascontiguousarray(np.moveaxis(fitted.reshape(codes.shape), 0, axis))
    return replace(tensor, codes=moved, scale=scale), int(unsafe.sum())


@dataclass(frozen=True)
class _Lines:
    """Weights that share a scale each.

    Attributes:
        sizes: (lines, weights), magnitudes in steps of their line.
        one, other: the places in ``sizes`` of the weights of pairs that may exceed ``limit``.
        limit: as in :func:`fit_pairs`.
    """

    sizes: NDArray[np.float64]
    one: tuple[NDArray[np.intp], NDArray[np.intp]]
    other: tuple[NDArray[np.intp], NDArray[np.intp]]
    limit: int

    @classmethod
    def of(cls, at: NDArray[np.float64], order: NDArray[np.intp], limit: int) -> _Lines:
        one, other = at[:, order[:, 0]], at[:, order[:, 1]]
        line, pair = np.nonzero((np.abs(one + other) > limit - 1) & (one * other > 0))
        return cls(np.abs(at), (line, order[pair, 0]), (line, order[pair, 1]), limit)

    def codes(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the nearest codes that fit to ``x``, ``sizes`` in wider steps."""
        codes = np.rint(x)
        np.minimum(codes, _TOP, out=codes)
        codes[self.one], codes[self.other] = _cut(x[self.one], x[self.other], self.limit)
        return codes

    def best_factors(self) -> NDArray[np.int64]:
        """Return the n of each line."""
        whole = np.rint(self.sizes * (2 * self.limit))  # a step is then 2 n
        best = np.full(len(whole), self.limit)
        least = self._errors(whole, best)
        for tried in self._promising(whole).T:
            errors = self._errors(whole, tried)
            best, least = np.where(errors < least, tried, best), np.minimum(errors, least)
        return best

    def _errors(self, whole: NDArray[np.float64], factors: NDArray[np.int64]) -> NDArray[np.float64]:
        step = 2.0 * factors[:, None]
        rest = whole - step * self.codes(whole / step)
        errors: NDArray[np.float64] = np.vecdot(rest, rest)
        return errors

    def _promising(self, whole: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the n of least error if weights are rounded to eighths of a step first, but for those of large pairs,
        (lines, _TRIED)."""
        bins = np.minimum(np.rint(self.sizes * 8), 8 * _TOP).astype(np.int64)
        bins += np.arange(len(whole))[:, None] * (8 * _TOP + 1)
        size = len(whole) * (8 * _TOP + 1)
        counts = np.bincount(bins.reshape(-1), minlength=size)
        counts -= np.bincount(bins[self.one], minlength=size) + np.bincount(bins[self.other], minlength=size)
        one, other = whole[self.one], whole[self.other]
        widest = min(int((one + other).max(initial=0) / (2 * self.limit)) + 1, 2 * _TOP)
        factors = np.arange(self.limit, max(widest, self.limit + _TRIED) + 1)
        errors = counts.reshape(len(whole), -1).astype(np.float64) @ _rounding_errors(self.limit)[:, : len(factors)]
        for n in factors:
            first, second = _cut(one / (2 * n), other / (2 * n), self.limit)
            cut = (one - 2 * n * first) ** 2 + (other - 2 * n * second) ** 2
            errors[:, n - self.limit] += np.bincount(self.one[0], cut, len(whole))
        found: NDArray[np.int64] = factors[errors.argsort(1, kind="stable")[:, :_TRIED]]
        return found


def _cut(
    one: NDArray[np.float64], other: NDArray[np.float64], limit: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the nearest codes that fit of the magnitudes of pairs, in steps."""
    first, second = np.minimum(np.rint(one), _TOP), np.minimum(np.rint(other), _TOP)
    above = first + second > limit
    nearest = np.clip(np.rint((one - other + limit) / 2), limit - _TOP, _TOP)
    return np.where(above, nearest, first), np.where(above, limit - nearest, second)


@cache
def _rounding_errors(limit: int) -> NDArray[np.float64]:
    """Return the squared error of eighths of a step, (eighths, n from ``limit``), in the unit of ``whole``."""
    step, whole = 2.0 * np.arange(limit, 2 * _TOP + 1), np.arange(8 * _TOP + 1)[:, None] * (limit / 4)
    errors: NDArray[np.float64] = (whole - step * np.minimum(np.rint(whole / step), _TOP)) ** 2
    return errors


def _order(shape: tuple[int, ...], groups: int) -> NDArray[np.intp]:
    """Return the places of both weights of each pair in a channel, (pairs, 2), without the zeros that fill some."""
    places = neighbours(np.arange(1, np.prod(shape[1:]) + 1).reshape(1, *shape[1:]), 0, groups)[0]
    order: NDArray[np.intp] = places[(places > 0).all(-1)] - 1
    return order


def _positions(
    codes: NDArray[np.int8], scale: NDArray[np.float32], values: NDArray[np.float32] | None
) -> NDArray[np.float64]:
    """Return what is rounded, in steps: the values of a line, or its codes where these are not its values rounded.

    Codes of a solver that sees its inputs (``gptq``) are up to some steps from their values, and less than one on
    average: to round these again would add an error to theirs. Codes of levels, such as ternary ones, are further.
    """
    if values is None:
        return codes.astype(np.float64)
    at = values / scale[:, None]
    rounded = np.abs(np.clip(at, -_TOP, _TOP) - codes).mean(1, keepdims=True) < 1
    return np.where(rounded, at, codes).astype(np.float64)
