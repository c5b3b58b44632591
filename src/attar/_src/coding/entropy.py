"""The bound every coder here is measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def entropy_bits(histogram: NDArray[np.int64]) -> float:
    """Return the zero-order entropy of symbols of ``histogram``, in bits for each symbol; 0 where there are none.

    ``H = -sum(p log2 p)``, ``p = histogram / sum(histogram)``.

    Example:
        >>> entropy_bits(np.array([1, 1, 2]))
        1.5
    """
    counts = histogram[histogram > 0].astype(np.float64)
    if counts.size < 2:
        return 0.0
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
