"""Whole steps of an integer layer's sums: input scale times weight scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_INT32 = 2.0**31 - 1


def step_sizes(input_scale: float, scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the steps of sums of products by a weight of these scales: float32 products."""
    return np.float32(input_scale) * scale


def to_steps(values: NDArray[np.float32], sizes: NDArray[np.float32]) -> NDArray[np.int64] | None:
    """Return ``values / sizes`` rounded to whole numbers, None if one is beyond 32 bits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint(values.astype(np.float64) / sizes)
    return steps.astype(np.int64) if np.isfinite(steps).all() and np.abs(steps).max(initial=0) < _INT32 else None


def from_steps(steps: NDArray[np.int64], sizes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``steps * sizes``, a float64 product rounded to float32.

    Example:
        >>> from_steps(np.array([251]), step_sizes(0.1, np.array([0.02], np.float32))).tolist()
        [0.5020000338554382]
    """
    return (steps.astype(np.float64) * sizes).astype(np.float32)
