"""Public names that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from attar._src.core.optional import install_hint


def lazy_attributes(module: str, where: Mapping[str, str], name: str, names: dict[str, Any]) -> Any:
    """Return the attribute ``name`` of a module, imported from where it is defined, and remember it.

    Args:
        module: the name of the module that is asked.
        where: public name -> the module that defines it.
        name: what is asked for.
        names: the globals of the module that is asked.

    Raises:
        AttributeError: there is no such name.
        ModuleNotFoundError: the base install alone is there and the name needs ``attar[compress]``.
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
