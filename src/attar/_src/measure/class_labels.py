"""Class labels in other forms than one integer for each position: one-hot, and with an axis of length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout, usual_axis
from attar._src.measure.difference import are_shares


def class_labels(outputs: NDArray[Any], targets: NDArray[Any], layout: ClassLayout = FROM_SHAPES) -> NDArray[Any]:
    """Return targets as integers of the shape of the outputs without the class axis; those of no such form unchanged.

    - One-hot targets, of the outputs' shape, with a single 1 among zeros along the class axis: its index.
    - Integers with an axis of length 1 in place of the class axis, as masks ``(N, 1, H, W)``: without the axis.

    Outputs that are probabilities of several labels, between 0 and 1 with another sum than 1, have no classes.

    Example:
        >>> scores = np.array([[0.1, -0.2, 3.0], [4.0, 0.0, 1.0]])
        >>> class_labels(scores, np.array([[0, 0, 1], [1, 0, 0]]))
        array([2, 0])
        >>> class_labels(scores, np.array([[2], [0]]))
        array([2, 0])
    """
    axis = usual_axis(outputs.ndim) if layout.axis is None else layout.axis
    if outputs.ndim < 2 or targets.ndim != outputs.ndim or outputs.shape[axis] < 2:
        return targets
    if targets.shape == outputs.shape:
        return targets.argmax(axis) if _is_one_hot(targets, axis) and not _are_several(outputs, axis) else targets
    single = [*outputs.shape]
    single[axis] = 1
    return targets.squeeze(axis) if targets.shape == tuple(single) and targets.dtype.kind in "iu" else targets


def _is_one_hot(targets: NDArray[Any], axis: int) -> bool:
    return bool(((targets == 0) | (targets == 1)).all() and (targets.sum(axis) == 1).all())


def _are_several(outputs: NDArray[Any], axis: int) -> bool:
    """Return whether outputs are probabilities that do not exclude each other."""
    return are_shares(outputs) and not np.allclose(outputs.sum(axis), 1, atol=1e-3)
