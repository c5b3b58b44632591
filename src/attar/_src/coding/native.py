"""Extensions in C, which are there if a compiler was at the installation."""

from __future__ import annotations

import importlib
import os
from typing import Any


def native_module(name: str) -> Any | None:
    """Return the extension of a name, such as ``attar._src.coding._native``; None where Python does its work.

    That is where it was not built, and with ``ATTAR_NO_NATIVE=1`` in the environment.
    """
    if os.environ.get("ATTAR_NO_NATIVE", "0") not in ("", "0"):
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
