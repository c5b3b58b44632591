"""Weights whose products fit 16 bits in pairs, so that the fast integer kernels of every processor are exact.

On x86 without VNNI the fast kernels add products of uint8 and int8 in pairs of 16 bits, and saturate if two codes a
and b of one sign have |a| + |b| > L, L = 128 for inputs up to 255 (``runtime.accumulator``). Codes up to 64 never do;
codes up to 127 may in a few pairs. In a channel that has one the step grows by a factor n / L, and what a pair still
exceeds L by, e, is cut off both codes:

    c' = round(c L / n),        |a'| - ceil(e / 2),  |b'| - floor(e / 2)        of a pair with e = |a'| + |b'| - L > 0

n, from L to the largest |a| + |b|, is the one of least squared error, the sum of (L c - n c')^2: with n = L a pair
(66, 64) is cut to (65, 63) and all others stay; with n = 160 a pair (100, 60) becomes (80, 48) and all others are
rounded again. The error is computed in integers, so that equal codes become equal files on every machine.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from attar._src.core.float16 import SCALE_BITS, from_half, round_nearest, round_up, to_half
from attar._src.core.tensors import Quantized
from attar._src.runtime.accumulator import largest_pairs, neighbours


def fit_pairs(tensor: Quantized, axis: int, limit: int, groups: int = 1) -> tuple[Quantized, int]:
    """Return a weight of which no pair exceeds ``limit``, and the number of output channels that had one.

    Args:
        tensor: on a symmetric grid, with a single scale or one for each output channel.
        axis: of the output channels.
        limit: the largest |a| + |b| of neighbours of one sign.
        groups: of a convolution.
    """
    unsafe = largest_pairs(neighbours(tensor.codes, axis, groups)) > limit
    if not unsafe.any():
        return tensor, 0
    codes, scale = np.moveaxis(tensor.codes, axis, 0).astype(np.int8), tensor.scale.astype(np.float64)
    size = codes[0].size
    places = neighbours(np.arange(1, size + 1).reshape(1, *codes.shape[1:]), 0, groups)[0]
    order = places[(places > 0).all(-1)] - 1  # without the zeros that fill a pair or a channel
    # Channels of a single scale share the factor.
    for rows in np.flatnonzero(unsafe)[:, None] if scale.size > 1 else [np.arange(len(codes))]:
        fitted, factor = _fit_line(codes[rows].reshape(len(rows), size), order, limit)
        codes[rows] = fitted.reshape(len(rows), *codes.shape[1:])
        scale[rows if scale.size > 1 else 0] *= factor / limit
    stored = scale.astype(np.float32)
    if (round_up(tensor.scale) == tensor.scale).all():  # short as they were: by 0.1 %, far less than a step of a code
        stored = np.where(stored == tensor.scale, stored, round_nearest(stored, SCALE_BITS))
    if tensor.scale_dtype != "f32":
        stored = from_half(to_half(stored, tensor.scale_dtype), tensor.scale_dtype)
    return replace(tensor, codes=np.ascontiguousarray(np.moveaxis(codes, 0, axis)), scale=stored), int(unsafe.sum())


def _fit_line(codes: NDArray[np.int8], order: NDArray[np.intp], limit: int) -> tuple[NDArray[np.int64], int]:
    """Return the codes of one scale, (channels, weights), for a step ``n / limit`` times as wide; and n."""
    wide = codes.astype(np.int64)
    pairs = wide[:, order]
    one, other = pairs[..., 0], pairs[..., 1]
    channel, pair = np.nonzero((one * other > 0) & (np.abs(one + other) > limit))
    pairs = pairs[channel, pair]
    factor = _best_factor(wide, np.abs(pairs), limit)
    fitted = _rounded(wide, factor, limit)
    fitted[channel[:, None], order[pair]] = np.sign(pairs) * _cut(np.abs(pairs), factor, limit)
    return fitted, factor


def _rounded(codes: NDArray[np.int64], factor: NDArray[np.int64] | int, limit: int) -> NDArray[np.int64]:
    """Return the nearest codes on a step ``factor / limit`` times as wide."""
    return np.rint(codes * limit / factor).astype(np.int64)


def _cut(sizes: NDArray[np.int64], factor: NDArray[np.int64] | int, limit: int) -> NDArray[np.int64]:
    """Return the magnitudes (..., pairs, 2) on the wider step, each pair at most ``limit``."""
    found = _rounded(sizes, factor, limit)
    excess = np.maximum(found[..., 0] + found[..., 1] - limit, 0)
    found[..., 0] -= excess - excess // 2
    found[..., 1] -= excess // 2
    return found


def _best_factor(codes: NDArray[np.int64], pairs: NDArray[np.int64], limit: int) -> int:
    """Return the n of least squared error.

    Args:
        codes: all of a scale.
        pairs: magnitudes of the pairs above ``limit``, (pairs, 2). On a wider step no other pair exceeds it.
    """
    factors = np.arange(limit, pairs.sum(1).max(initial=limit) + 1)
    error = _errors(limit)[: len(factors)] @ np.bincount(codes.reshape(-1) + 128, minlength=256)
    # Of few distinct pairs: at most 127^2.
    keys, counts = np.unique(pairs @ [128, 1], return_counts=True)
    distinct, factors = np.stack(np.divmod(keys, 128), -1), factors[:, None, None]
    kept, cut = ((limit * distinct - factors * form(distinct, factors, limit)) ** 2 for form in (_rounded, _cut))
    error += (cut - kept).sum(-1) @ counts
    return int(factors[error.argmin(), 0, 0])


@cache
def _errors(limit: int) -> NDArray[np.int64]:
    """Return the squared error (n - limit, c + 128) of each code c rounded to n / limit steps."""
    factors, codes = np.arange(limit, 257)[:, None], np.arange(-128, 128)
    errors: NDArray[np.int64] = (limit * codes - factors * _rounded(codes, factors, limit)) ** 2
    return errors
