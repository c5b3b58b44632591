"""Spec fields that hold one of a registry's specs, chosen by ``name``, or a user's own."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag

from attar._src.core.registry import Registry
from attar._src.core.spec import Spec

_OWN = "file.py:name"


def spec_choice(registry: Registry[type[Spec]], own: type[Spec]) -> Any:
    """Return the type of a field that holds one of the registry's specs: ``{name: kl, temperature: 4}``.

    A name that is ``file.py:name`` or a Python object makes an ``own``; a bare name ``x`` is short for ``{name: x}``.
    """
    members = [Annotated[spec, Tag(name)] for name, spec in zip(registry, registry.values(), strict=True)]

    def tag(value: Any) -> str:
        name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
        return _OWN if not isinstance(name, str) or ":" in name else name

    def spelled_out(value: Any) -> Any:
        return value if isinstance(value, dict | Spec) else {"name": value}

    union = reduce(or_, members, Annotated[own, Tag(_OWN)])
    return Annotated[union, Discriminator(tag), BeforeValidator(spelled_out)]
