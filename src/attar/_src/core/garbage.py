"""Garbage: the search for reference cycles, paused where it costs much and finds little."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused(*, freeze: bool = False) -> Iterator[None]:
    """Do not search for reference cycles meanwhile; objects without cycles are freed as ever.

    Imports and exports make millions of objects, and every search walks all that are alive: a tenth of a short run.

    Args:
        freeze: whether later searches leave out what is alive at the end. For a process of our own, after its imports:
            what is frozen is never freed if it is part of a cycle.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if was:
            gc.enable()
