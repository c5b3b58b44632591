"""Labels of users, converted to int64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError


def as_labels(values: Any, *, where: str) -> NDArray[np.int64]:
    """Return integers or booleans of any type as int64, in their shape.

    Args:
        values: an array or nested lists.
        where: source of the labels, for messages.

    Raises:
        DataError: the type is another one, or a label is too large for int64.
    """
    labels = np.asarray(values)
    if labels.dtype.kind not in "biu":
        raise DataError(f"{where}: labels are integers, {labels.dtype} arrived; convert them with .astype('int64')")
    if labels.dtype == np.uint64 and labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: the label {int(labels.max())} does not fit int64")
    return labels.astype(np.int64)
