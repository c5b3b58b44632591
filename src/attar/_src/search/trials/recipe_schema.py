"""The JSON schema of a recipe's file, with ``search`` and with holes wherever they may stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar._src.recipe.recipe import SEARCH_KEY, Recipe
from attar._src.search.trials.spec import JUDGES, TRAINS, SearchSpec

_Part = Mapping[str, Any]
#: What editors show of a value, which may have several forms.
_NOTES = ("title", "description", "default")
_DEFINED = "#/$defs/"


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe with or without a search.

    A value ``v`` of the schema ``s`` becomes ``s``, or ``{choose: [v, ...]}`` of such values, or, of numbers,
    ``{between: [v, v]}``; behind names of a mapping also ``each: layer``. What trials are judged by has no holes. That
    holes need a search, and how their values go together, is checked by :func:`attar.run_search` alone.
    """
    plain, search = Recipe.schema(), SearchSpec.model_json_schema()
    parts = _Holes(plain["$defs"])
    judged = {name for name in JUDGES if name in plain["properties"]}
    opened = {place.partition(".")[2] for place in TRAINS if place.startswith("data.")}
    definitions = {
        name: parts.fields(part, f"{_DEFINED}{name}", only=opened if name == "DataSpec" else None)
        for name, part in plain["$defs"].items()
    }
    properties = {
        name: part if name in judged else parts.place(part, f"#/properties/{name}")
        for name, part in plain["properties"].items()
    }
    properties[SEARCH_KEY] = {name: part for name, part in search.items() if name != "$defs"}
    return {**plain, "$defs": {**search.get("$defs", {}), **definitions}, "properties": properties}


class _Holes:
    """Puts holes into parts of a schema, whose definitions these are; pointers are those of the new schema."""

    def __init__(self, definitions: _Part) -> None:
        self._definitions = definitions

    def place(self, part: _Part, pointer: str, *, layers: bool = False) -> dict[str, Any]:
        """Return the schema of a value that may be a hole; ``layers``: or one for each layer that a glob matches."""
        if not part or part == {"type": "null"}:
            return dict(part)
        each = {"each": {"const": "layer"}} if layers else {}
        # Of what is one word here, such as the name of a stage, another word is another part of the schema.
        inner: _Part = {"type": "string"} if "const" in part else {"$ref": pointer}
        forms = [
            self.fields({name: told for name, told in part.items() if name not in _NOTES}, f"{pointer}/anyOf/0"),
            _mapping(choose={"type": "array", "minItems": 2, "uniqueItems": True, "items": inner}, **each),
        ]
        if self._numeric(part):
            ends = {"type": "array", "minItems": 2, "maxItems": 2, "items": {"allOf": [{"type": "number"}, inner]}}
            forms.append(_mapping(between=ends, log={"type": "boolean"}, **each))
        return {**{name: part[name] for name in _NOTES if name in part}, "anyOf": forms}

    def fields(self, part: _Part, pointer: str, *, only: set[str] | None = None) -> dict[str, Any]:
        """Return the schema of a value that is no hole itself, and may have some in its fields; ``only`` in these."""
        found = {name: told for name, told in part.items() if name != "discriminator"}
        if "properties" in part:
            found["properties"] = {
                name: self.place(each, f"{pointer}/properties/{name}") if only is None or name in only else each
                for name, each in part["properties"].items()
            }
        if isinstance(part.get("items"), Mapping):
            found["items"] = self.place(part["items"], f"{pointer}/items")
        if "prefixItems" in part:
            found["prefixItems"] = [
                self.place(each, f"{pointer}/prefixItems/{index}") for index, each in enumerate(part["prefixItems"])
            ]
        if isinstance(part.get("additionalProperties"), Mapping):
            behind = f"{pointer}/additionalProperties"
            # Models and caches, which are not of $defs, have names and no globs.
            globs = pointer.startswith(_DEFINED)
            found["additionalProperties"] = self.place(part["additionalProperties"], behind, layers=globs)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in part:
                del found[key]
                # Where a word is a hole, a value may be of several kinds.
                told = "anyOf" if key == "oneOf" else key
                found[told] = [self.fields(each, f"{pointer}/{told}/{place}") for place, each in enumerate(part[key])]
        return found

    def _numeric(self, part: _Part) -> bool:
        """Return whether a value may be a number."""
        if "$ref" in part:
            return self._numeric(self._definitions[part["$ref"].removeprefix(_DEFINED)])
        if any(self._numeric(each) for key in ("anyOf", "oneOf") for each in part.get(key, ())):
            return True
        return part.get("type") in ("integer", "number")


def _mapping(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": [next(iter(fields))], "additionalProperties": False}
