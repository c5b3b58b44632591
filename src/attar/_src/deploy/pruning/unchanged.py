"""Modules that stay as they were where something fails."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def unchanged_on_error(*modules: nn.Module) -> Iterator[None]:
    """Give modules their attributes, hooks and tensors back if the body raises.

    It is for removals, which replace the data of tensors; what is written into a tensor stays.
    """
    parts = {id(part): part for module in modules for part in module.modules()}.values()
    tensors = {id(each): each for part in parts for each in (*part._parameters.values(), *part._buffers.values())}
    data = [(each, each.data, each.grad) for each in tensors.values() if each is not None]
    attributes = [(part, {name: (value, _entries(value)) for name, value in vars(part).items()}) for part in parts]
    try:
        yield
    except BaseException:
        for tensor, before, gradient in data:
            tensor.data, tensor.grad = before, gradient
        for part, told in attributes:
            vars(part).clear()
            for name, (value, entries) in told.items():
                if entries is not None:
                    value.clear()
                    value.update(entries)
                vars(part)[name] = value
        raise


def _entries(value: object) -> dict[object, object] | None:
    """Return the entries of a mapping: of parameters, buffers, submodules and hooks, which change in place."""
    return copy.copy(value) if isinstance(value, dict) else None
