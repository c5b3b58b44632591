"""Where a command will write, checked before it does any work."""

from __future__ import annotations

import os
from pathlib import Path

from attar.core.errors import SpecError


def demand_writable(path: Path) -> None:
    """Check that a file can be put at ``path``; nothing is written.

    Raises:
        SpecError: ``path`` is a folder, or its own folder is not there, is a file, or may not be written in.
    """
    folder = path.parent
    if path.is_dir():
        raise SpecError(f"{path} is a folder; name a file in it, such as {path / 'model'}")
    if folder.is_dir():
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SpecError(f"{path} cannot be written: the folder {folder} is not yours to write in; choose another")
        return
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        raise SpecError(f"{path} cannot be written: {there} is a file, not a folder; choose another folder")
    raise SpecError(f"{path} cannot be written: there is no folder {folder}; make it with `mkdir -p {folder}`")
