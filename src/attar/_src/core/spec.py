"""Spec: a frozen, validated description whose fields are its configuration, JSON both ways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from attar._src.core.errors import SpecError, UnknownName


class Spec(BaseModel):
    """Base of every description: frozen, no unknown fields, no silent conversions.

    A subclass only names its fields. ``model_dump(mode="json")`` and ``model_validate`` are inverse to each other.
    A list stands for a tuple: YAML and JSON have no others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _accept(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name in given:
            if name not in known and cls.model_config.get("extra") == "forbid":
                raise PydanticCustomError("unknown_key", "{why}", {"why": str(UnknownName("key", str(name), known))})
        return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def refused(message: str, *place: str | int) -> PydanticCustomError:
    """Return what a validator raises to refuse a value, with the place of the fault below that value.

    Args:
        message: what arrived and the nearest fix.
        place: keys and positions that lead from the validated value to the fault.
    """
    return PydanticCustomError("refused", "{why}", {"why": message, "place": ".".join(map(str, place))})


@contextmanager
def refusing_at(*place: str | int) -> Iterator[None]:
    """Turn a :class:`SpecError` raised in a validator into a refusal at ``place``."""
    try:
        yield
    except SpecError as error:
        raise refused(str(error), *place) from error


def explain(error: ValidationError, *, where: str, given: Any = None) -> str:
    """Return the first three faults of a failed validation as ``where.path: message (got ...)``.

    Args:
        error: the failed validation.
        where: what the path begins with.
        given: what was validated, where its paths shall be those of the user: without the words that pydantic puts in
            for the member of a union it has chosen.
    """
    lines = []
    for fault in error.errors(include_url=False)[:3]:
        place = fault["loc"] if given is None else _place(fault["loc"], given, fault["type"])
        context = fault.get("ctx", {})
        below = [context["place"]] if context.get("place") else []
        path = ".".join([*([where] if where else []), *map(str, place), *below])
        before = f"{path}: " if path else ""
        if fault["type"] in ("unknown_key", "refused"):
            lines.append(f"{before}{fault['msg']}")
        elif fault["type"] == "union_tag_invalid":
            known = [word.strip("'") for word in str(context["expected_tags"]).split(", ")]
            # A field that tells them apart is quoted; a function that does so goes by the name.
            field = str(context["discriminator"])
            what = field.strip("'") if field.startswith("'") else "name"
            lines.append(f"{before}{UnknownName(what, str(context['tag']), known)}")
        else:
            arrived: Any = fault.get("input")
            lines.append(f"{before}{fault['msg']} (got {repr(arrived)[:80]})")
    return "; ".join(lines)


def _place(loc: tuple[int | str, ...], given: Any, fault: str) -> list[int | str]:
    """Return the parts of a location that lead through ``given``.

    So does the last one of a missing key, and of a refusal what lies behind a word that stands for a mapping.
    """
    found: list[int | str] = []
    for index, part in enumerate(loc):
        inside = part in given if isinstance(given, dict) else isinstance(part, int) and isinstance(given, list | tuple)
        shorthand = fault == "refused" and not isinstance(given, dict | list | tuple)
        if inside or shorthand or (fault == "missing" and index == len(loc) - 1):
            found.append(part)
        if inside:
            given = given[part]
    return found


def build_spec(spec: type[Spec], *, where: str, **fields: Any) -> Any:
    """Make a ``spec`` from keyword arguments, raising a readable :class:`SpecError` when they do not fit."""
    try:
        return spec(**fields)
    except ValidationError as error:
        raise SpecError(explain(error, where=where)) from error
