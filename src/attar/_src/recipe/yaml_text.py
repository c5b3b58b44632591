"""Text: a recipe's YAML file, and what the command line puts in its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from attar._src.core.errors import SpecError, UnknownName, missing_file


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML without surprises: 1e-3 is a number, and a key that stands twice is refused."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        # Here and not later: merging (``<<``) puts keys beside those they give way to.
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add((key.tag, str(key.value)))
        return node


# YAML 1.1 wants a point and a sign in an exponent; people and YAML 1.2 do not.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)

#: Fields where a word stands for a mapping -> the key that word is under.
_WORDS = {"data": "source", "source": "factory"}


def parse_yaml(path: Path) -> dict[str, Any]:
    """Return what a recipe's file holds, not yet looked at.

    Raises:
        SpecError: there is no such file, or it is not a YAML mapping.
    """
    if not path.is_file():
        raise SpecError(missing_file(path, "there is no recipe"))
    try:
        tree = yaml.load(path.read_text(), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise SpecError(f"{path} holds a {type(tree).__name__}; a recipe is a mapping with the keys data and models")
    return tree


def apply_overrides(tree: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return the tree with each ``path.to.key=value`` put in place, in order.

    A key the recipe leaves out may be set; what leads to it must be there.

    Raises:
        SpecError: a setting has no form, or its path leads nowhere; the nearest name is given.
    """
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not all(path.split(".")):
            raise SpecError(f"--set {setting!r}: write key.path=value, as in --set models.student.stages.0.epochs=3")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise SpecError(f"--set {setting!r}: the value is not YAML: {' '.join(str(error).split())}") from error
        tree = _put(tree, path.split("."), value, setting)
    return tree


def _put(node: Any, keys: list[str], value: Any, setting: str) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise SpecError(f"--set {setting}: {key!r} is no place in a list of {len(node)}; use 0 to {len(node) - 1}")
        return [_put(item, rest, value, setting) if i == int(key) else item for i, item in enumerate(node)]
    if not isinstance(node, dict):
        raise SpecError(f"--set {setting}: {node!r} has no key {key!r}")
    if rest and key not in node:
        raise SpecError(f"--set {setting}: {UnknownName('key', key, map(str, node))}")
    inner = node.get(key)
    if rest and not isinstance(inner, dict | list) and key in _WORDS:
        inner = {_WORDS[key]: inner}
    return {**node, key: _put(inner, rest, value, setting)}
