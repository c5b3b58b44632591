"""The JSON schema of a recipe's file, with ``search`` and with holes wherever they may stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attar._src.recipe.recipe import SEARCH_KEY, Recipe
from attar._src.search.trials.spec import JUDGES, TRAINS, SearchSpec

_Part = Mapping[str, Any]
#: What editors show of a value, which may have several forms.
_NOTES = ("title", "description", "default")
_DEFINED = "#/$defs/"
#: Keys by which mappings of several kinds are told apart.
_KEYS = ("stage", "name", "kind")


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe with or without a search.

    A value ``v`` of the schema ``s`` becomes ``s``, or ``{choose: [v, ...]}`` of such values, or, of numbers,
    ``{between: [v, v]}``; behind names of a mapping also ``each: layer``. What trials are judged by has no holes. That
    holes need a search, and how their values go together, is checked by :func:`attar.run_search` alone.

    What a value is follows from it by ``if``, a hole by its key and a stage by its name, not by trying all forms: a
    validator names the faulty key of that form.
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
        holes = [_mapping(choose={"type": "array", "minItems": 2, "uniqueItems": True, "items": inner}, **each)]
        if self._numeric(part):
            ends = {"type": "array", "minItems": 2, "maxItems": 2, "items": {"allOf": [{"type": "number"}, inner]}}
            holes.append(_mapping(between=ends, log={"type": "boolean"}, **each))
        plain = {name: told for name, told in part.items() if name not in _NOTES}
        found = self.fields(plain, pointer + "/else" * len(holes))
        for hole in reversed(holes):
            found = {"if": _has(hole["required"][0], {"type": "array"}), "then": hole, "else": found}
        return {**{name: part[name] for name in _NOTES if name in part}, **found}

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
        if (tagged := self._tagged(part)) is not None:
            found = {name: told for name, told in found.items() if name not in ("anyOf", "oneOf")}
            return {**found, "allOf": self._kinds(*tagged, f"{pointer}/allOf")}
        for key in ("anyOf", "oneOf", "allOf"):
            if key in part:
                del found[key]
                # Where a word is a hole, a value may be of several kinds.
                told = "anyOf" if key == "oneOf" else key
                found[told] = [self.fields(each, f"{pointer}/{told}/{place}") for place, each in enumerate(part[key])]
        return found

    def _tagged(self, part: _Part) -> tuple[str, dict[str, list[_Part]], list[_Part]] | None:
        """Return the key that tells which of several mappings a value is, these by the words of it, and other forms."""
        members = [*_members(part)]
        for key in _KEYS:
            words: dict[str, list[_Part]] = {}
            for each in members:
                if (word := self._properties(each).get(key, {}).get("const")) is not None:
                    words.setdefault(word, []).append(each)
            if len(words) > 1:
                return key, words, [each for each in members if not any(each in group for group in words.values())]
        return None

    def _properties(self, part: _Part) -> _Part:
        named: _Part = self._definitions.get(str(part.get("$ref")).removeprefix(_DEFINED), {})
        return dict(named.get("properties", {}))

    def _kinds(self, key: str, words: Mapping[str, list[_Part]], others: list[_Part], pointer: str) -> list[_Part]:
        """Return conditions on a value of several kinds: by the word behind its key the fields that it may have."""
        found: list[_Part] = [
            {"if": _has(key, {"const": word}), "then": self._one_of(group)} for word, group in words.items()
        ]
        texts = [each for each in others if each.get("type") == "string"]
        own = [each for each in others if each not in texts]
        known: _Part = {"anyOf": [{"enum": [*words]}, {"pattern": ":"}]} if own else {"enum": [*words]}
        for each in own:
            then = self.fields(each, f"{pointer}/{len(found)}/then")
            found.append({"if": _has(key, {"type": "string", "pattern": ":"}), "then": then})
        found.append({"if": _has(key, {"type": "string"}), "then": {"properties": {key: known}}})
        found.append({"if": {"type": "object"}, "then": {"required": [key]}})
        # A word that stands for the whole, and a mapping whose key is a hole.
        place = f"{pointer}/{len(found)}/else/anyOf"
        forms: list[_Part] = [self.fields(each, f"{place}/{index}") for index, each in enumerate(own)]
        forms += [{**each, **known} for each in texts]
        forms += [each for group in words.values() for each in group]
        worded = {"type": "object", "properties": {key: {"type": "string"}}}
        return [*found, {"if": worded, "else": {"anyOf": forms}}]

    def _one_of(self, group: list[_Part]) -> _Part:
        """Return the schema of mappings of one name: the first that alone has a key that is there, else the last."""
        first, *rest = group
        if not rest:
            return first
        others = {name for each in rest for name in self._properties(each)}
        alone = [name for name in self._properties(first) if name not in others]
        return {"if": {"anyOf": [{"required": [name]} for name in alone]}, "then": first, "else": self._one_of(rest)}

    def _numeric(self, part: _Part) -> bool:
        """Return whether a value may be a number."""
        if "$ref" in part:
            return self._numeric(self._definitions[part["$ref"].removeprefix(_DEFINED)])
        if any(self._numeric(each) for key in ("anyOf", "oneOf") for each in part.get(key, ())):
            return True
        return part.get("type") in ("integer", "number")


def _members(part: _Part) -> Iterator[_Part]:
    """Yield the forms that a value may have, those of a form that has several one by one."""
    for each in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        inner = [*_members(each)]
        yield from inner if inner and not {"type", "$ref", "enum"} & each.keys() else [each]


def _has(key: str, value: _Part) -> dict[str, Any]:
    return {"type": "object", "properties": {key: value}, "required": [key]}


def _mapping(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": [next(iter(fields))], "additionalProperties": False}
