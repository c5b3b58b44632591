"""Neighbours: the files beside a user's file that it imports, and those that they do: its code is theirs too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def local_imports(path: Path) -> set[Path]:
    """Return the Python files that ``path`` imports from its own folder or below, directly or by way of others.

    Read from the text, nothing is run: ``import a.b``, ``from a import b``, ``from . import b``, wherever they stand.
    """
    found: set[Path] = set()
    todo = [path]
    while todo:
        for named in _imported(todo.pop(), path.parent):
            if named not in found and named != path:
                found.add(named)
                todo.append(named)
    return found


def _imported(path: Path, folder: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # whoever imports it says what is wrong
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = folder if node.level == 0 else path.parents[node.level - 1]
            parts = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _files(base, [*parts, alias.name])


def _files(folder: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the module that dotted parts lead to, and the packages on the way; the last may be a name inside it."""
    for part in parts:
        for candidate in (folder / f"{part}.py", folder / part / "__init__.py"):
            if candidate.is_file():
                yield candidate
        folder = folder / part
