"""Checks of an output path before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from attar._src.artifact.files import demand_replaceable
from attar._src.core.errors import SpecError


def demand_writable(path: Path) -> None:
    """Check that a file can be written at ``path``, without writing.

    Raises:
        SpecError: ``path`` is a folder, a device or a FIFO, or its folder is missing, is a file, or is not writable.
    """
    # os.path returns False for a folder whose parent is not readable; pathlib raises.
    if os.path.isdir(path):
        raise SpecError(f"{path} is a folder; name a file in it, such as {path / 'model'}")
    demand_replaceable(path)
    folder = path.parent
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    if not there.is_dir():
        raise SpecError(f"{path} cannot be written: {there} is a file, not a folder; choose another folder")
    if there != folder:
        raise SpecError(f"{path} cannot be written: there is no folder {folder}; make it with `mkdir -p {folder}`")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecError(f"{path} cannot be written: the folder {folder} is not writable; choose another one")
