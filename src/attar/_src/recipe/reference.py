"""Reference: a field of a recipe that is a registered word, ``file.py:name``, or a Python object.

A file only describes an object, so a recipe with objects can be run from Python alone.
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

#: ``file.py:name``, anywhere in a recipe.
_IN_FILE = re.compile(r"(?P<file>[^:]+\.py):(?P<name>\w+)")


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
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    named = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    described = {"object": f"{named.__module__}.{named.__qualname__}", **_code(named)}
    return described | {"state": _digest(value)} if isinstance(value, nn.Module) else described


def object_paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every Python object in a recipe, such as ``models.net.source.factory``."""
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
    """Return the files that a described recipe names as ``file.py:name``, unexpanded."""
    if isinstance(value, str):
        match = _IN_FILE.fullmatch(value)
        return {match["file"]} if match else set()
    if isinstance(value, Mapping):
        value = list(value.values())
    return {name for item in value for name in referenced_files(item)} if isinstance(value, list | tuple) else set()


def _fields(spec: BaseModel) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in type(spec).model_fields} | (spec.model_extra or {})


def _code(named: Any) -> dict[str, str]:
    try:
        return {"code": hashlib.sha256(inspect.getsource(named).encode()).hexdigest()}
    except (OSError, TypeError):
        # Defined at a prompt, or not in Python.
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
