"""Tensors that a glob selects."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from attar._src.core.errors import UnknownName


def matching_tensors(glob: str, names: list[str], aliases: Mapping[str, str]) -> list[str]:
    """Return the names that match ``glob`` themselves or whose layer does, under any of their names.

    Raises:
        UnknownName: there are none.
    """
    known = {name: name for name in names} | {alias: name for alias, name in aliases.items() if name in names}
    matched = {
        of for each, of in known.items() if fnmatchcase(each, glob) or fnmatchcase(each.rpartition(".")[0], glob)
    }
    if not matched:
        raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in names} | set(names))
    return [name for name in names if name in matched]
