"""Spec: the base class of frozen, validated configuration objects that convert to and from JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function

from attar._src.core.errors import SpecError, UnknownName
from attar._src.core.registry import Registry

#: Fields that tell which of several specs this is; always in the record.
_KINDS = frozenset({"name", "kind", "stage"})
_OWN = "file.py:name"
#: ``path/file.py:name``; the path belongs to one machine and is left out of records.
_IN_FILE = re.compile(r"(?:.*[/\\])?([^/\\:]+\.py:\w+)")


class Spec(BaseModel):
    """A frozen pydantic model without unknown fields or silent conversions.

    ``model_validate`` inverts ``model_dump(mode="json")``. Lists are accepted for tuples, which YAML and JSON lack.
    Validators are built when they are first used: of the records of a file only that of the whole manifest is.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _accept(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = _keys(cls)
        for name in given:
            if name not in known and cls.model_config.get("extra") == "forbid":
                raise PydanticCustomError("unknown_key", "{why}", {"why": str(UnknownName("key", str(name), known))})
        return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}

    def describe(self) -> dict[str, Any]:
        """Return the record of this spec: JSON without the fields at their default, which ``model_validate`` reads.

        Two things cannot be read back: ``path/file.py:name`` is recorded as ``file.py:name``, and a Python object by
        its name or the name of its class.
        """
        found: dict[str, Any] = _without_defaults(self, self.model_dump(mode="json", fallback=reference_name))
        return found


@cache
def _keys(spec: type[Spec]) -> frozenset[str]:
    """Return the keys that a spec takes; files have thousands of records of few kinds."""
    return frozenset(field.alias or name for name, field in spec.model_fields.items())


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
    in_file = _IN_FILE.fullmatch(dumped) if isinstance(dumped, str) else None
    return in_file[1] if in_file else dumped


def refused(message: str, *place: str | int) -> PydanticCustomError:
    """Return what a validator raises to refuse a value; ``place`` are the keys from that value to the fault."""
    return PydanticCustomError("refused", "{why}", {"why": message, "place": ".".join(map(str, place))})


@contextmanager
def refusing_at(*place: str | int) -> Iterator[None]:
    """Turn a :class:`SpecError` raised in a validator into a refusal at ``place``."""
    try:
        yield
    except SpecError as error:
        raise refused(str(error), *place) from error


def explain(error: ValidationError, *, where: str, given: Any = None) -> str:
    """Format the first three faults of a failed validation as ``where.path: message (got ...)``.

    With ``given``, the validated value, paths omit the tags that pydantic inserts for members of a union.
    """
    lines = []
    for fault in error.errors(include_url=False)[:3]:
        context = fault.get("ctx", {})
        place = fault["loc"] if given is None else _place(fault["loc"], given, fault["type"])
        path = ".".join(str(part) for part in (where, *place, context.get("place", "")) if part != "")
        if fault["type"] in ("unknown_key", "refused"):
            message = fault["msg"]
        elif fault["type"] == "union_tag_invalid":
            known = [word.strip("'") for word in str(context["expected_tags"]).split(", ")]
            # pydantic quotes the discriminating field; the function of a spec_choice reads `name`.
            field = str(context["discriminator"])
            what = field.strip("'") if field.startswith("'") else "name"
            message = str(UnknownName(what, str(context["tag"]), known))
        else:
            message = f"{fault['msg']} (got {repr(fault.get('input'))[:80]})"
        lines.append(f"{path}: {message}" if path else message)
    return "; ".join(lines)


def _place(loc: tuple[int | str, ...], given: Any, fault: str) -> list[int | str]:
    """Return the parts of a location that lead through ``given``, to a missing key, or behind a shorthand word."""
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
    """Build a ``spec`` from keyword arguments; raise a readable :class:`SpecError` if they are invalid."""
    try:
        return spec(**fields)
    except ValidationError as error:
        raise SpecError(explain(error, where=where)) from error


class _RegisteredWord:
    """Validates a word of a registry; its JSON schema has the words, so that editors complete them."""

    def __init__(self, registry: Registry[Any]) -> None:
        self._registry = registry

    def __get_pydantic_core_schema__(self, kind: Any, handler: Any) -> Any:
        return no_info_after_validator_function(self._check, handler(kind))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(schema), "anyOf": [{"enum": [*self._registry]}, {"pattern": ":"}]}

    def _check(self, value: Any) -> Any:
        registry = self._registry
        if isinstance(value, str) and ":" not in value and value not in set(registry):
            raise refused(str(UnknownName(registry.noun, value, registry)))
        return value


def registered_word(registry: Registry[Any]) -> Any:
    """Refuse a word that is neither registered nor a reference such as ``file.py:name``; Python objects pass.

    Every field that names an entry of a registry has this: a recipe is refused before anything runs, with the path.

    Example: ``coder: Annotated[str, registered_word(CODERS)]`` refuses ``ranz``: "no coder named 'ranz'; did you mean
    'rans'?".
    """
    return _RegisteredWord(registry)


class _NamedInFile:
    """In JSON schemas, tells a user's own spec from registered ones: its name has a colon."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"allOf": [handler(schema), {"properties": {"name": {"pattern": ":"}}}]}


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

    union: Any = Annotated[reduce(or_, members, Annotated[own, Tag(_OWN), _NamedInFile()]), Discriminator(tag)]
    return Annotated[union, BeforeValidator(spelled_out, json_schema_input_type=str | union)]


def demand_share(value: Any) -> Any:
    """Return a value that is no number, or one from 0 to 1, which other validators judge further.

    Raises:
        PydanticCustomError: a number is above 1, or below 0: 50 is written 0.5.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and value > 1:
        meant = f"{value / 100:g} for {value:g} %" if 2 <= value < 100 else "0.5 for half"
        raise refused(f"{value:g} is no share, which is less than 1; write {meant}")
    if number and value < 0:
        raise refused(f"{value:g} is no share, which is not below 0; write 0.5 for half")
    return value


#: From 0 to 1, without 1.
SomeShare = Annotated[float, Field(ge=0, lt=1), BeforeValidator(demand_share)]
#: Between 0 and 1.
PartShare = Annotated[float, Field(gt=0, lt=1), BeforeValidator(demand_share)]
