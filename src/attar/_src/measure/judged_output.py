"""The output of a file that metrics judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError
from attar._src.runtime.session import Session


def judged_output(session: Session, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the main output ``(n, ...)`` for inputs ``(n, ...)`` in the order of the graph's.

    If the graph's batch is fixed, a shorter one is filled up with copies of its last example.

    Raises:
        DataError: an input does not fit, or the output is not finite.
    """
    if len(inputs) != len(session.inputs):
        names = [port.name for port in session.inputs]
        raise DataError(
            f"the file takes the inputs {names}, the data has {len(inputs)} an example; data sets have one input, "
            "a file of several is run with attar.Session"
        )
    axis = session.inputs[0].shape[0] if session.inputs[0].shape else None
    missing = axis - len(inputs[0]) if isinstance(axis, int) else 0
    full = [np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing > 0 else x for x in inputs]
    named = {port.name: array for port, array in zip(session.inputs, full, strict=True)}
    found: NDArray[Any] = session.run(named)[session.main_output][: len(inputs[0])]
    if not np.isfinite(found).all():
        raise DataError(f"output {session.main_output!r} is not finite; it cannot be judged")
    return found
