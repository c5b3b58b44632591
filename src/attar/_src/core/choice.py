"""Spec fields that hold one of a registry's specs, chosen by ``name``, or a user's own.

objective: {name: kl, temperature: 4, teacher: teacher}
objective: {name: losses.py:focal, arguments: {gamma: 2}}
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag

from attar._src.core.registry import Registry
from attar._src.core.spec import Spec

_OWN = "file.py:name"


def spec_choice(registry: Registry[type[Spec]], own: type[Spec]) -> Any:
    """Return the type of a field that holds one of the registry's specs.

    A bare word is short for ``{name: word}``; a Python object (a loss, a class) is short for ``{name: object}``.

    Args:
        registry: spec classes, each with a literal field ``name``.
        own: the spec of names of the form ``file.py:name`` and of Python objects.
    """
    members = [Annotated[spec, Tag(name)] for name, spec in zip(registry, registry.values(), strict=True)]

    def tag(value: Any) -> str:
        name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
        return _OWN if not isinstance(name, str) or ":" in name else name

    def spelled_out(value: Any) -> Any:
        return value if isinstance(value, dict | Spec) else {"name": value}

    union = reduce(or_, members, Annotated[own, Tag(_OWN)])
    return Annotated[union, Discriminator(tag), BeforeValidator(spelled_out)]
