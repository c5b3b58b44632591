"""Compile inner loops with numba on their first call, so that importing ``coding`` stays fast."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` with numba on its first call; it releases the GIL and is cached on disk.

    ``function`` should take arrays and numbers and must not call another compiled function. If neither the package
    folder nor the user's cache is writable, each process compiles it again.
    """

    @functools.cache
    def build() -> Callable[P, R]:
        numba: Any = importlib.import_module("numba")  # takes 0.2 s, which `attar --help` should not pay
        options = {"nogil": True, "error_model": "numpy"}
        try:
            kernel: Callable[P, R] = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # numba found no writable cache folder
            kernel = numba.njit(**options)(function)
        return kernel

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return build()(*args, **kwargs)

    return call
