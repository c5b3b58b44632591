"""Compilation of the inner loops by numba, put off until the first call: importing ``coding`` is quick."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Have numba compile ``function`` when it is first called, without the interpreter lock, cached on disk.

    Only plain functions of arrays and numbers that call no other compiled function. Where neither the package's folder
    nor the user's cache can be written, the function is compiled anew in each process.
    """

    @functools.cache
    def build() -> Callable[P, R]:
        numba: Any = importlib.import_module("numba")  # a fifth of a second that `attar --help` need not wait for
        options = {"nogil": True, "error_model": "numpy"}
        try:
            kernel: Callable[P, R] = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # numba found no folder it may write to
            kernel = numba.njit(**options)(function)
        return kernel

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return build()(*args, **kwargs)

    return call
