"""Public names that are imported on first use (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
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


def lazy_attributes(module: str, where: Mapping[str, str], name: str, names: dict[str, Any]) -> Any:
    """Import the attribute ``name`` of a module, store it in the module and return it.

    Args:
        module: name of the public module.
        where: public name -> name of the defining module.
        name: the attribute.
        names: ``globals()`` of the public module.

    Raises:
        AttributeError: there is no such name.
        ModuleNotFoundError: the name needs ``attar[compress]``, which is not installed.
    """
    if name not in where:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(where[name]), name)
    except ModuleNotFoundError as error:
        needed = install_hint(error)
        if needed is None:
            raise
        raise ModuleNotFoundError(f"{module}.{name}: {needed}", name=error.name) from error
    names[name] = found
    return found
