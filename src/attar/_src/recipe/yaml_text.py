"""Recipes as YAML 1.2: read, with values replaced from the command line, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from attar._src.core.errors import SpecError, UnknownName, missing_file


class _Composer(Composer):
    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuse duplicate keys. The constructor cannot: it would miss those among keys merged by ``<<``."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                raise ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return node


#: Fields that may be a word instead of a mapping -> the key the word stands for.
_WORDS = {"data": "source", "source": "factory"}


def parse_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, not validated.

    Raises:
        SpecError: the file is missing, is not YAML, gives a key twice, or does not hold a mapping.
    """
    if not path.is_file():
        raise SpecError(missing_file(path, "there is no recipe"))
    try:
        tree = _load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not YAML: {_reason(error)}") from error
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise SpecError(f"{path} holds a {type(tree).__name__}; a recipe is a mapping with the keys data and models")
    return tree


def apply_overrides(tree: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return the tree with each ``path.to.key=value`` applied, in order; only the last key may be new.

    Raises:
        SpecError: a setting is malformed, or its path does not exist.
    """
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not all(path.split(".")):
            raise SpecError(f"--set {setting!r}: write key.path=value, as in --set models.student.stages.0.epochs=3")
        try:
            value = _load(text)
        except YAMLError as error:
            raise SpecError(f"--set {setting!r}: the value is not YAML: {_reason(error)}") from error
        tree = _put(tree, path.split("."), value, setting)
    return tree


def format_yaml(tree: Mapping[str, Any]) -> bytes:
    """Return a tree of JSON values as YAML, keys in their order; :func:`parse_yaml` reads it back."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # ASCII without line folding, because ruamel.yaml reads neither U+0085 nor every folded string back unchanged.
    yaml.allow_unicode, yaml.width = False, 1 << 30
    yaml.representer.sort_base_mapping_type_on_output = False
    out = BytesIO()
    yaml.dump(tree, out)
    return out.getvalue()


def _load(text: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    try:
        return yaml.load(text)
    except RecursionError:
        raise YAMLError("it is nested too deeply for a recipe") from None


def _reason(error: Exception) -> str:
    """Return an error as one line: ``line 2, column 1: the key 'data' is given twice``."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {' '.join(str(error.problem).split())}"
    return " ".join(str(error).split())


def _put(node: Any, keys: list[str], value: Any, setting: str) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise SpecError(f"--set {setting}: {key!r} is no index of a list of {len(node)}; use 0 to {len(node) - 1}")
        return [_put(item, rest, value, setting) if i == int(key) else item for i, item in enumerate(node)]
    if not isinstance(node, dict):
        raise SpecError(f"--set {setting}: {node!r} has no key {key!r}")
    if rest and key not in node:
        raise SpecError(f"--set {setting}: {UnknownName('key', key, map(str, node))}")
    inner = node.get(key)
    if rest and not isinstance(inner, dict | list) and key in _WORDS:
        inner = {_WORDS[key]: inner}
    return {**node, key: _put(inner, rest, value, setting)}
