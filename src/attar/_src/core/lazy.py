"""Public modules that import their names on first use (PEP 562)."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

#: The packages of each extra, by import name.
_EXTRAS = {
    "compress": (
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
    ),
    "search": ("optuna", "gymnasium", "stable_baselines3"),
    "ray": ("ray",),
}
#: What they are for.
_USES = {"compress": "training and compression", "search": "searches", "ray": "trials on several machines"}


def install_hint(error: ModuleNotFoundError) -> str | None:
    """Return what to install if the missing module belongs to an extra of Attar; None for other modules."""
    missing = (error.name or "").partition(".")[0]
    for extra, packages in _EXTRAS.items():
        if missing in packages:
            return f"this needs the packages for {_USES[extra]} ({error}): pip install 'attar[{extra}]'"
    return None


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector: what modules make stays, and looking for garbage in it is a tenth of an import.

    Afterwards it is of the oldest generation, as if collections had passed, so that the next ones leave it out, too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Not where the user has frozen objects, which this would thaw.
        if enabled and not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
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
