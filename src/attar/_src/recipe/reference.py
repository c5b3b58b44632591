"""Reference: a field of a recipe that is a registered word, ``file.py:name``, or a Python object.

An object cannot be written into a file: it is described there, and a recipe that needs it runs from Python alone.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, PlainSerializer, PlainValidator, WithJsonSchema
from torch import nn

from attar._src.core.digest import digest

#: ``file.py:name``, wherever it stands in a recipe.
_IN_FILE = re.compile(r"(?P<file>[^:]+\.py):(?P<name>\w+)")


def expand_path(path: str) -> Path:
    """Return a path of a recipe with ``~`` and ``$VARIABLES`` of the environment put in."""
    return Path(os.path.expandvars(path)).expanduser()


def to_json(value: Any) -> Any:
    """Return a value as JSON has it: words, numbers, lists and mappings as they are, any other object described.

    An object is described by the name and the SHA-256 of the code of its class or function, a module by that of its
    state too, so that another one is noticed.
    """
    if isinstance(value, BaseModel):
        value = _fields(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    named = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    found = {"object": f"{named.__module__}.{named.__qualname__}", **_code(named)}
    return found | {"state": _digest(value)} if isinstance(value, nn.Module) else found


def object_paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every Python object in a recipe: what a file could not hold."""
    if isinstance(value, BaseModel):
        value = _fields(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from object_paths(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from object_paths(item, f"{path}.{index}" if path else str(index))
    elif value is not None and not isinstance(value, str | int | float | bool | Path):
        yield path


def referenced_files(value: Any) -> set[str]:
    """Return the files that a described recipe names by ``file.py:name``, as they are written."""
    if isinstance(value, str):
        found = _IN_FILE.fullmatch(value)
        return {found["file"]} if found else set()
    if isinstance(value, Mapping):
        value = list(value.values())
    return {name for item in value for name in referenced_files(item)} if isinstance(value, list | tuple) else set()


def _fields(spec: BaseModel) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in type(spec).model_fields} | (spec.model_extra or {})


def _code(named: Any) -> dict[str, str]:
    try:
        return {"code": hashlib.sha256(inspect.getsource(named).encode()).hexdigest()}
    except (OSError, TypeError):
        # Written at a prompt, or not in Python at all.
        return {}


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
