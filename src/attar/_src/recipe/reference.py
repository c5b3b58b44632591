"""Reference: a field of a recipe that is a registered word, ``file.py:name``, or a Python object.

A file only describes an object, so a recipe with objects can be run from Python alone.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, PlainSerializer, PlainValidator, WithJsonSchema
from torch import nn

from attar._src.core.digest import digest

#: Types of the values that a recipe's file can have, beside lists and mappings.
PLAIN = str | int | float | bool | Path | None


def expand_path(path: str) -> Path:
    """Return a path of a recipe with ``~`` and ``$VARIABLES`` expanded."""
    return Path(os.path.expandvars(path)).expanduser()


def to_json(value: Any) -> Any:
    """Return a value as JSON: words, numbers, lists and mappings as they are, other objects described.

    The description has the name and the SHA-256 of the code of the object's class or function, for an ``nn.Module``
    also the SHA-256 of its state, so that a changed object is noticed when a run resumes.
    """
    if isinstance(value, BaseModel):
        value = _fields(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, PLAIN):
        return str(value) if isinstance(value, Path) else value
    named: Any = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    described = {"object": f"{named.__module__}.{named.__qualname__}", **_code(named)}
    return described | {"state": _digest(value)} if isinstance(value, nn.Module) else described


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the paths and values of a recipe's fields, such as ``("models.net.source.factory", "net.py:build")``."""
    if isinstance(value, BaseModel):
        value = _fields(value)
    if not isinstance(value, Mapping | list | tuple):
        yield path, value
        return
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from leaves(item, f"{path}.{key}" if path else str(key))


def _fields(spec: BaseModel) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in type(spec).model_fields} | (spec.model_extra or {})


@functools.cache  # examples may be many objects of one class
def _code(named: Any) -> dict[str, str]:
    try:
        return {"code": hashlib.sha256(inspect.getsource(named).encode()).hexdigest()}
    except (OSError, TypeError):
        return {}  # defined at a prompt, or not in Python


def _digest(module: nn.Module) -> str:
    state = module.state_dict().items()
    return digest(part for pair in state for part in pair if isinstance(part, str | torch.Tensor))


#: A word, ``file.py:name``, or an object.
Reference = Annotated[
    Any,
    PlainValidator(lambda value: value),
    PlainSerializer(to_json),
    WithJsonSchema({"type": "string", "description": "a registered word or file.py:name; in Python also an object"}),
]
