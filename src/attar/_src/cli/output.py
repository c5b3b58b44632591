"""Where a command will write, checked before it does any work."""

from __future__ import annotations

import os
from pathlib import Path

from attar._src.core.errors import SpecError


def demand_writable(path: Path) -> None:
    """Check that a file can be put at ``path``; nothing is written.

    Raises:
        SpecError: ``path`` is a folder, or its own folder is not there, is a file, or may not be written in.
    """
    # os.path says no where pathlib raises, for a folder whose parent may not be read.
    if os.path.isdir(path):
        raise SpecError(f"{path} is a folder; name a file in it, such as {path / 'model'}")
    folder = path.parent
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    if not there.is_dir():
        raise SpecError(f"{path} cannot be written: {there} is a file, not a folder; choose another folder")
    if there != folder:
        raise SpecError(f"{path} cannot be written: there is no folder {folder}; make it with `mkdir -p {folder}`")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecError(f"{path} cannot be written: nothing may be written in the folder {folder}; choose another one")
