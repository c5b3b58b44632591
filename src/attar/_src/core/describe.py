"""Records of specs: the fields that differ from their defaults."""

from __future__ import annotations

import re
from typing import Any

from attar._src.core.spec import Spec

#: Fields that tell which of several specs this is; always in the record.
_KINDS = frozenset({"name", "kind", "stage"})
#: ``path/file.py:name``; the path belongs to one machine and is left out.
_IN_FILE = re.compile(r"(?:.*[/\\])?([^/\\:]+\.py:\w+)")


def to_record(spec: Spec) -> dict[str, Any]:
    """Return a spec as JSON without the fields at their default; ``model_validate`` reads it back.

    Two things cannot be read back: ``path/file.py:name`` is recorded as ``file.py:name``, and a Python object by its
    name or the name of its class.
    """
    found: dict[str, Any] = _without_defaults(spec, spec.model_dump(mode="json", fallback=reference_name))
    return found


def reference_name(found: Any) -> str:
    """Return the name of a user's object in a record: its reference, or ``module:qualname`` of it or its class."""
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
