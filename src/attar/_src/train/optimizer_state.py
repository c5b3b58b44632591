"""Split nested state, such as an optimizer's, into JSON and named tensors, and join it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attar._src.core.errors import AttarError


def flatten_state(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return ``value`` as JSON with every tensor replaced by a name, and add the tensors to ``tensors``.

    Raises:
        AttarError: ``value`` contains more than None, booleans, numbers, strings, tensors, dicts, lists and tuples.

    Example:
        >>> flatten_state({"step": 3, "exp_avg": torch.zeros(2)}, "optimizer", {})
        {'dict': [['step', 3], ['exp_avg', {'tensor': 'optimizer.exp_avg'}]]}
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
        f"{name} is a {type(value).__name__} and cannot be stored in a checkpoint; use numbers, strings and tensors in "
        "dicts, lists and tuples"
    )


def unflatten_state(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Invert :func:`flatten_state`."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: unflatten_state(item, tensors) for key, item in inner}
    items = [unflatten_state(item, tensors) for item in inner]
    return items if kind == "list" else tuple(items)
