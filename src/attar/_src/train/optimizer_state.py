"""State: nested values with tensors in them as JSON and tensors by name, and back; what an optimizer remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attar._src.core.errors import AttarError


def flatten_state(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return ``value`` as JSON in which every tensor is a name; the tensors are put into ``tensors``.

    Args:
        value: None, booleans, numbers, strings and tensors, in dicts (of any such keys), lists and tuples.
        name: what the tensors' names begin with.
        tensors: filled.

    Raises:
        AttarError: something else is in it.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, flatten_state(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [flatten_state(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]}
    raise AttarError(
        f"{name} is a {type(value).__name__} and cannot be kept in a checkpoint; numbers, strings and tensors can, in "
        "dicts, lists and tuples"
    )


def unflatten_state(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return what :func:`flatten` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: unflatten_state(item, tensors) for key, item in inner}
    items = [unflatten_state(item, tensors) for item in inner]
    return items if kind == "list" else tuple(items)
