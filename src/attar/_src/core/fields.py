"""Fields of batches and outputs by name, and which of several outputs is the main one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def named_fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of a mapping, a dataclass instance or a named tuple by name, in order; None of anything else.

    Hugging Face's ``BatchEncoding`` and ``ModelOutput`` are mappings.
    """
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    return None


def first_arguments(parameters: Mapping[str, bool], count: int) -> tuple[str, ...]:
    """Return the names of the first ``count`` arguments: ``x, more_0, more_1`` of ``{"x": True, "*more": False}``."""
    names = [name for name in parameters if not name.startswith("*")]
    for place, name in enumerate(parameters):
        if name.startswith("*"):
            names[place:] = [f"{name[1:]}_{index}" for index in range(count - place)]
    return tuple(names[:count])


def main_output_name(floating: Mapping[str, bool]) -> str:
    """Return which output losses and metrics see: ``logits``, else the first floating one, else the first.

    Args:
        floating: name of each output, in order -> whether it is floating-point.
    """
    return max(floating, key=lambda name: (name == "logits", floating[name]))
