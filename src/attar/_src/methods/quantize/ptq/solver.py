"""Solvers: given a weight and a grid, find scales and codes."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import SpecError
from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor

#: Scales below this are raised to it: a channel of zeros still has a normal, positive scale.
TINY = float(np.finfo(np.float32).tiny)


class Solver(Protocol):
    """Finds the scales of one weight."""

    name: ClassVar[str]

    def solve(self, weight: NDArray[np.float32], scheme: Scheme) -> CompressedTensor:
        """Return ``weight`` on the grid of ``scheme``, in its own shape.

        Raises:
            SpecError: the weight has NaN or infinities, or the scheme does not fit its shape.
        """
        ...


def weight_extremes(weight: NDArray[np.float32], scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and largest value of each scale's elements, zero counted in, both of shape ``(scales,)``."""
    if not np.isfinite(weight).all():
        raise SpecError("a weight with NaN or infinities cannot be quantized")
    count = scheme.granularity.count(weight.shape)
    index = flat_index(weight, scheme)
    values = weight.reshape(-1).astype(np.float64)
    low, high = np.zeros(count), np.zeros(count)
    np.minimum.at(low, index, values)
    np.maximum.at(high, index, values)
    return low, high


def flat_index(weight: NDArray[Any], scheme: Scheme) -> NDArray[np.int64]:
    """Return the scale each element belongs to, shape ``(weight.size,)``."""
    return np.broadcast_to(scheme.granularity.index(weight.shape), weight.shape).reshape(-1)


def affine_grid(
    low: NDArray[np.float64], high: NDArray[np.float64], scheme: Scheme
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Return the scales and zero points of a grid that spans ``[low, high]``, which holds zero.

    Symmetric: ``S = max(|low|, |high|) / qmax`` (a one-bit grid, whose largest code is 0, spans its smallest).
    Asymmetric: ``S = (high - low) / qmax``, ``Z = round(-low / S)``.
    """
    if scheme.symmetric:
        scale = np.maximum(-low, high) / (scheme.qmax or -scheme.qmin)
        return np.maximum(scale, TINY).astype(np.float32), None
    spread = np.maximum((high - low) / scheme.qmax, TINY).astype(np.float32)
    zero = np.clip(np.rint(-low / spread), scheme.qmin, scheme.qmax)
    return spread, zero.astype(np.uint8)
