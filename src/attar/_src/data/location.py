"""The files of built-in data sets, in the folder that ``ATTAR_DATA`` names."""

from __future__ import annotations

import os
from pathlib import Path

from attar._src.core.errors import DataError

VARIABLE = "ATTAR_DATA"


def locate(name: str, folder: str, files: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the paths of ``files``: all in ``$ATTAR_DATA/<folder>``, or all in ``$ATTAR_DATA`` itself.

    Raises:
        DataError: a file is missing; lists every path that was tried.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        raise DataError(
            f"{name}: expected {', '.join(files)} in ${VARIABLE}/{folder} (or in ${VARIABLE}); {VARIABLE} is not set: "
            f"set it to the folder that holds {folder}"
        )
    candidates = [tuple(place / file for file in files) for place in (Path(root) / folder, Path(root))]
    for paths in candidates:
        if all(path.is_file() for path in paths):
            return paths
    tried = "\n".join(
        f"  {path} ({'there' if path.is_file() else 'missing'})" for paths in candidates for path in paths
    )
    raise DataError(f"{name}: expected {', '.join(files)} in one folder, with {VARIABLE}={root}; tried\n{tried}")
