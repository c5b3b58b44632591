"""The exporter's table of translations to ONNX, made once a process.

``torch.onnx.export`` makes it at every call, of 500 functions whose source it parses: 0.4 s, a third of the export of a
small network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any

from torch.onnx._internal.exporter import _registration


@cache
def _made(opset_version: int) -> Any:
    return _MAKE(opset_version)


def _again(opset_version: int) -> Any:
    """Return a table of its own for one export, which adds translations to it."""
    table = copy(_made(opset_version))
    table.functions = {operator: [*found] for operator, found in table.functions.items()}
    return table


_REGISTRY: Any = getattr(_registration, "ONNXRegistry", None)
_MAKE: Any = getattr(_REGISTRY, "from_torchlib", None)


@contextmanager
def translations_kept() -> Iterator[None]:
    """Let ``torch.onnx.export`` take the table of an earlier export."""
    # It has no public name. An exporter without it makes its own.
    if _MAKE is None:
        yield
        return
    own = _REGISTRY.__dict__["from_torchlib"]
    _REGISTRY.from_torchlib = staticmethod(_again)
    try:
        yield
    finally:
        _REGISTRY.from_torchlib = own
