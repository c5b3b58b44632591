"""Describe: what a record says of a spec: the fields that are not at their defaults, and of which kind it is."""

from __future__ import annotations

import re
from typing import Any

from attar._src.core.spec import Spec

#: Fields that say which of several specs this is: without them nothing could be made of a description.
_KINDS = frozenset({"name", "kind", "stage"})
#: ``path/file.py:name``; the path leads through somebody's machine, and a record travels.
_IN_FILE = re.compile(r"(?:.*[/\\])?([^/\\:]+\.py:\w+)")


def to_record(spec: Spec) -> dict[str, Any]:
    """Return a spec as JSON without the fields that have their default; ``model_validate`` takes it back.

    What it does not take back: of ``path/file.py:name`` only the file's name is said, and of an object that JSON has no
    words for, the name it or its class has in Python.
    """
    found: dict[str, Any] = _without_defaults(spec, spec.model_dump(mode="json", fallback=reference_name))
    return found


def reference_name(found: Any) -> str:
    """Return what a record calls an object of a user's: its reference, or the name it has in Python."""
    if isinstance(found, str):
        return found
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}:{named.__qualname__}"


def _without_defaults(value: Any, dumped: Any) -> Any:
    match value:
        case Spec() if isinstance(dumped, dict):
            fields = type(value).model_fields
            told = [n for n, f in fields.items() if n in _KINDS or f.is_required() or getattr(value, n) != f.default]
            told += list(value.model_extra or {})
            return {name: _without_defaults(getattr(value, name), dumped[name]) for name in told}
        case dict():
            pairs = zip(value.values(), dumped.items(), strict=True)
            return {key: _without_defaults(item, said) for item, (key, said) in pairs}
        case list() | tuple():
            return [_without_defaults(item, said) for item, said in zip(value, dumped, strict=True)]
    travels = _IN_FILE.fullmatch(dumped) if isinstance(dumped, str) else None
    return travels[1] if travels else dumped
