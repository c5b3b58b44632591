"""Local imports: the Python files beside a user's file that it imports, whose changes change its behaviour too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def local_imports(path: Path) -> set[Path]:
    """Return the Python files that ``path`` imports from its own folder or below, directly or indirectly.

    Imports (``import a.b``, ``from a import b``, ``from . import b``) are parsed anywhere in the file; nothing is run.
    """
    files: set[Path] = set()
    todo = [path]
    while todo:
        for file in _imported(todo.pop(), path.parent):
            if file not in files and file != path:
                files.add(file)
                todo.append(file)
    return files


def _imported(path: Path, folder: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # importing it raises a better error
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
    """Yield the files of the module and packages on a dotted path; its last part may be a name inside the module."""
    for part in parts:
        for candidate in (folder / f"{part}.py", folder / part / "__init__.py"):
            if candidate.is_file():
                yield candidate
        folder = folder / part
