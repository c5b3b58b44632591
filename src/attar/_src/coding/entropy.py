"""Zero-order entropy: the lower bound of every coder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def entropy_bits(histogram: NDArray[np.int64]) -> float:
    """Return ``-sum(p log2 p)`` in bits per symbol with ``p = histogram / sum(histogram)``; 0 if it is empty.

    Example:
        >>> entropy_bits(np.array([1, 1, 2]))
        1.5
    """
    counts = histogram[histogram > 0].astype(np.float64)
    if counts.size < 2:
        return 0.0
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
