"""Spec: a frozen, validated description whose fields are its configuration, JSON both ways."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from attar.core.errors import SpecError


class Spec(BaseModel):
    """Base of every description: frozen, no unknown fields, no silent conversions.

    A subclass only names its fields. ``model_dump(mode="json")`` and ``model_validate`` are inverse to each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def explain(error: ValidationError, *, where: str) -> str:
    """Return the first three faults of a failed validation as ``where.path: message (got ...)``."""
    lines = []
    for fault in error.errors(include_url=False, include_context=False)[:3]:
        path = ".".join([where, *map(str, fault["loc"])]) if where else ".".join(map(str, fault["loc"]))
        arrived: Any = fault.get("input")
        lines.append(f"{path}: {fault['msg']} (got {repr(arrived)[:80]})")
    return "; ".join(lines)


def build(spec: type[Spec], *, where: str, **fields: Any) -> Any:
    """Make a ``spec`` from keyword arguments, raising a readable :class:`SpecError` when they do not fit."""
    try:
        return spec(**fields)
    except ValidationError as error:
        raise SpecError(explain(error, where=where)) from error
