"""Preprocess raw examples (``docs/format.md``, section 6).

Training and calibration use it too, so that a model sees the same inputs everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import DataError


def preprocess(preprocessing: Preprocessing, raw: NDArray[Any]) -> NDArray[np.float32]:
    """Return ``(raw * scale - mean[c]) / std[c]`` in float32, c along the axis C of the layout.

    ``mean`` and ``std`` have one element, or one per channel; ``raw`` has one axis per letter of the layout.

    Raises:
        DataError: the axes or channels of ``raw`` do not fit the layout.

    Example:
        >>> unit = Preprocessing(name="unit", layout="NC", scale=0.5, mean=(1.0,), std=(2.0,))
        >>> preprocess(unit, np.array([[2, 6]])).tolist()
        [[0.0, 1.0]]
    """
    layout = preprocessing.layout
    if raw.ndim != len(layout):
        raise DataError(
            f"raw examples of layout {layout} have {len(layout)} axes; an array of shape {raw.shape} arrived"
        )
    out = raw.astype(np.float32)
    out *= np.float32(preprocessing.scale)
    out -= _along(preprocessing.mean, layout, raw, "mean")
    out /= _along(preprocessing.std, layout, raw, "std")
    return out


def _along(values: tuple[float, ...], layout: str, raw: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Return ``mean`` or ``std``, broadcastable to the examples: (3,) for NCHW -> (1, 3, 1, 1)."""
    form = [1] * raw.ndim
    if len(values) != 1:
        axis = layout.find("C")
        channels = raw.shape[axis] if axis >= 0 else 0
        if channels != len(values):
            raise DataError(
                f"{what} has {len(values)} values but the examples, {layout} {raw.shape}, have {channels} channels"
            )
        form[axis] = channels
    return np.array(values, np.float32).reshape(form)
