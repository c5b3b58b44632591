"""JSON Schema 2020-12, as far as the schemas here use it: an unknown keyword is an error, so that no check is lost."""

import json
import re

_NOTES = {"$schema", "$defs", "title", "description", "default", "discriminator", "examples"}
_TYPES = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


def faults(schema, value):
    """Return what of a value a schema refuses, one text each; empty if it is valid.

    Example: ``faults({"type": "integer"}, "2")`` is ``["$: '2' is no integer"]``.
    """
    return [*_faults(schema, schema, value, "$")]


def _faults(root, part, value, path):
    if part is True or part is False:
        if not part:
            yield f"{path}: nothing may stand here"
        return
    known = {name: check for name, check in globals().items() if name.startswith("_on_")}
    for word, told in part.items():
        if word not in _NOTES:
            yield from known["_on_" + word.strip("$").lower()](root, part, told, value, path)


def _on_ref(root, part, told, value, path):
    target = root
    for key in told.removeprefix("#/").split("/"):
        key = key.replace("~1", "/").replace("~0", "~")
        target = target[int(key)] if isinstance(target, list) else target[key]
    yield from _faults(root, target, value, path)


def _on_type(root, part, told, value, path):
    if not any(_TYPES[name](value) for name in ([told] if isinstance(told, str) else told)):
        yield f"{path}: {value!r} is no {told}"


def _on_const(root, part, told, value, path):
    yield from _on_enum(root, part, [told], value, path)


def _on_enum(root, part, told, value, path):
    if json.dumps(value, sort_keys=True) not in {json.dumps(each, sort_keys=True) for each in told}:
        yield f"{path}: {value!r} is none of {told}"


def _on_anyof(root, part, told, value, path):
    tried = [[*_faults(root, each, value, path)] for each in told]
    if all(tried):
        yield f"{path}: none of {len(told)}: {min(tried, key=len)[0]}"


def _on_oneof(root, part, told, value, path):
    tried = [[*_faults(root, each, value, path)] for each in told]
    if sum(not each for each in tried) != 1:
        yield f"{path}: {sum(not each for each in tried)} of {len(told)}: {min(tried, key=len)}"


def _on_allof(root, part, told, value, path):
    for each in told:
        yield from _faults(root, each, value, path)


def _on_if(root, part, told, value, path):
    branch = "else" if [*_faults(root, told, value, path)] else "then"
    if branch in part:
        yield from _faults(root, part[branch], value, path)


def _on_then(root, part, told, value, path):
    assert "if" in part
    yield from ()


_on_else = _on_then


def _on_not(root, part, told, value, path):
    if not [*_faults(root, told, value, path)]:
        yield f"{path}: {value!r} is excluded"


def _on_properties(root, part, told, value, path):
    for key, each in told.items():
        if isinstance(value, dict) and key in value:
            yield from _faults(root, each, value[key], f"{path}.{key}")


def _on_additionalproperties(root, part, told, value, path):
    for key in [*value] if isinstance(value, dict) else ():
        if key not in part.get("properties", {}):
            yield from _faults(root, told, value[key], f"{path}.{key}")


def _on_required(root, part, told, value, path):
    if isinstance(value, dict):
        yield from (f"{path}: {key} is missing" for key in told if key not in value)


def _on_prefixitems(root, part, told, value, path):
    for index, each in enumerate(told):
        if isinstance(value, list) and index < len(value):
            yield from _faults(root, each, value[index], f"{path}.{index}")


def _on_items(root, part, told, value, path):
    for index, each in enumerate(value) if isinstance(value, list) else ():
        if index >= len(part.get("prefixItems", ())):
            yield from _faults(root, told, each, f"{path}.{index}")


def _bound(kinds, size, holds):
    def check(root, part, told, value, path):
        if any(_TYPES[kind](value) for kind in kinds) and not holds(size(value), told):
            yield f"{path}: {value!r} against {told}"

    return check


_on_minimum = _bound(["number"], lambda v: v, lambda v, t: v >= t)
_on_maximum = _bound(["number"], lambda v: v, lambda v, t: v <= t)
_on_exclusiveminimum = _bound(["number"], lambda v: v, lambda v, t: v > t)
_on_exclusivemaximum = _bound(["number"], lambda v: v, lambda v, t: v < t)
_on_minitems = _bound(["array"], len, lambda v, t: v >= t)
_on_maxitems = _bound(["array"], len, lambda v, t: v <= t)
_on_minlength = _bound(["string"], len, lambda v, t: v >= t)
_on_minproperties = _bound(["object"], len, lambda v, t: v >= t)
_on_pattern = _bound(["string"], lambda v: v, lambda v, t: re.search(t, v) is not None)
_on_uniqueitems = _bound(["array"], lambda v: v, lambda v, t: len({json.dumps(e, sort_keys=True) for e in v}) == len(v))
