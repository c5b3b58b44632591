"""Files that others may have put in our way: links are not followed, devices not replaced, writers take turns."""

from __future__ import annotations

import importlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attar._src.core.errors import SpecError

_locks: Any = importlib.import_module("fcntl") if os.name == "posix" else None
_STALE = 60.0  # seconds after which a lock file is that of a process that has ended
_PAUSE = 0.01


def demand_replaceable(path: Path) -> None:
    """Check that what is at ``path``, or where its link leads, is a file or nothing.

    Raises:
        SpecError: it is a device, a FIFO, a socket or a folder, which writing a file would replace.
    """
    for follow in (True, False):
        # Whoever writes it refuses what is in no folder, or in none that can be read.
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            mode = os.stat(path, follow_symlinks=follow).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                kind = "a folder" if stat.S_ISDIR(mode) else "a device, FIFO or socket"
                raise SpecError(f"{path} is {kind}, not a file, and is left as it is; name a file to write")


def no_link(name: str, flags: int) -> int:
    """Open a file, or make it, but follow no symbolic link: the ``opener`` of :func:`open`."""
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def open_part(path: Path) -> tuple[int, Path]:
    """Make a new file beside ``path``, ``.NAME.NUMBER.part``; return its descriptor and its path."""
    number = os.getpid()
    while True:
        beside = path.with_name(f".{path.name}.{number}.part")
        try:
            return no_link(str(beside), os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)), beside
        except FileExistsError:  # another thread's, or left over; whatever it is, it is not ours
            number += 1 << 22  # beyond the numbers of processes


@contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Let one writer at a time, of all threads and processes, change files of a folder.

    The folder itself is locked, so that nothing is left in it. Where folders cannot be locked (Windows, some network
    file systems), a file ``.lock`` exists meanwhile.
    """
    if _locks is None:
        with _lock_file(folder / ".lock"):
            yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            _locks.flock(held, _locks.LOCK_EX)
        except OSError:
            with _lock_file(folder / ".lock"):
                yield
            return
        yield
    finally:
        os.close(held)


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    while True:
        try:
            os.close(no_link(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time.time() - os.lstat(path).st_mtime > _STALE:
                    path.unlink()
            time.sleep(_PAUSE)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
