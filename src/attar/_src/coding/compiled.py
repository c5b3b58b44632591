"""Compile inner loops with numba on their first call: importing numba takes 0.2 s, too long for ``attar --help``."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function``, which must not call another compiled one; it releases the GIL and is cached on disk.

    If neither the package folder nor the user's cache is writable, each process compiles it again.
    """

    @functools.cache
    def build() -> Callable[P, R]:
        njit: Any = functools.partial(importlib.import_module("numba").njit, nogil=True, error_model="numpy")
        try:
            kernel: Callable[P, R] = njit(cache=True)(function)
        except RuntimeError:  # numba found no writable cache folder
            kernel = njit()(function)
        return kernel

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return build()(*args, **kwargs)

    return call
