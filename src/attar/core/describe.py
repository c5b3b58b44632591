"""Describe: what a record says of a spec: the fields that are not at their defaults, and of which kind it is."""

from __future__ import annotations

from typing import Any

from attar.core.spec import Spec

#: Fields that say which of several specs this is: without them nothing could be made of a description.
_KINDS = frozenset({"name", "kind", "stage"})


def described(spec: Spec) -> dict[str, Any]:
    """Return a spec as JSON without the fields that have their default; ``model_validate`` takes it back."""
    found: dict[str, Any] = _without_defaults(spec, spec.model_dump(mode="json"))
    return found


def _without_defaults(value: Any, dumped: Any) -> Any:
    match value:
        case Spec() if isinstance(dumped, dict):
            fields = type(value).model_fields
            told = [n for n, f in fields.items() if n in _KINDS or f.is_required() or getattr(value, n) != f.default]
            told += list(value.model_extra or {})
            return {name: _without_defaults(getattr(value, name), dumped[name]) for name in told}
        case dict():
            return {key: _without_defaults(item, dumped[str(key)]) for key, item in value.items()}
        case list() | tuple():
            return [_without_defaults(item, said) for item, said in zip(value, dumped, strict=True)]
    return dumped
