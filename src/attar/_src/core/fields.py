"""Fields of batches and outputs by name, and which of several outputs is the main one."""

from __future__ import annotations

import builtins
import dataclasses
import keyword
from collections.abc import Mapping, Sequence
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


def argument_of(name: str, parameters: Mapping[str, bool], given: Sequence[str] = ()) -> str | None:
    """Return the argument an input belongs to, None if there is none.

    An input is an argument itself, an entry of ``*more`` (``more_0``), or an entry of an argument that is a tuple or a
    mapping and not itself ``given``: ``inputs_0`` is the first entry of ``inputs``, ``batch_mask`` is ``mask`` in
    ``batch``.
    """
    if name in parameters:
        return name
    stem, _, last = name.rpartition("_")
    if last.isdigit() and f"*{stem}" in parameters:
        return f"*{stem}"
    owners = [each for each in parameters if each not in given and name.startswith(f"{each}_")]
    return max(owners, key=len, default=None)


def python_word(port: str) -> str:
    """Return the argument that an input of a file was: the exporter renames Python's own words, input -> input_1."""
    stem = port.removesuffix("_1")
    return stem if keyword.iskeyword(stem) or hasattr(builtins, stem) else port


def main_output_name(floating: Mapping[str, bool]) -> str:
    """Return which output losses and metrics see: ``logits``, else the first floating one, else the first.

    Args:
        floating: name of each output, in order -> whether it is floating-point.
    """
    return max(floating, key=lambda name: (name == "logits", floating[name]))
