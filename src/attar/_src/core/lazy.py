"""Public modules that import their names on first use (PEP 562)."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

#: The packages of ``attar[compress]``, by import name.
_COMPRESS = (
    "filelock",
    "jinja2",
    "lightning_fabric",
    "onnxscript",
    "plotly",
    "ruamel",
    "safetensors",
    "sklearn",
    "tensorboardX",
    "torch",
)


def install_hint(error: ModuleNotFoundError) -> str | None:
    """Return what to install if the missing module belongs to ``attar[compress]``; None for other modules."""
    if (error.name or "").partition(".")[0] not in _COMPRESS:
        return None
    return f"this needs the packages for training and compression ({error}): pip install 'attar[compress]'"


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector: what modules make stays, and looking for garbage in it is a tenth of an import."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def lazy_names(
    module: str, table: Mapping[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` of a public module.

    Args:
        module: its ``__name__``.
        table: module below ``attar._src`` -> the public names it defines, separated by spaces.
    """
    where = {name: f"attar._src.{path}" for path, names in table.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        try:
            with _without_collector():
                found = getattr(importlib.import_module(where[name]), name)
        except ModuleNotFoundError as error:
            needed = install_hint(error)
            if needed is None:
                raise
            raise ModuleNotFoundError(f"{module}.{name}: {needed}", name=error.name) from error
        setattr(sys.modules[module], name, found)
        return found

    return sorted(where), get, lambda: sorted({*vars(sys.modules[module]), *where})
