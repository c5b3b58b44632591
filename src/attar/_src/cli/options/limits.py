"""Limits that the command line raises."""

from __future__ import annotations

from attar._src.artifact.limits import Limits

MAX_ELEMENTS = "Elements a file may have, 2^28 by default; the file must be trusted with the memory."


def raised_limits(max_elements: int | None) -> Limits | None:
    """Return the limits for files of this many elements, None for the defaults."""
    return None if max_elements is None else Limits().for_elements(max_elements)
