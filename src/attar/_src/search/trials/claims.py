"""Which process runs a trial: the one that holds its lock, which the system lets go when a process ends."""

from __future__ import annotations

from pathlib import Path

import filelock

from attar._src.search.search_folder import TRIALS


class Claims:
    """The locks of trials in one folder, held by this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / TRIALS
        self._folder.mkdir(parents=True, exist_ok=True)
        self._held: dict[int, filelock.BaseFileLock] = {}

    def path(self, number: int, rung: int | None = None) -> Path:
        """Return the folder of a trial's run, or of its run at a rung."""
        return self._folder / (f"{number:04d}" if rung is None else f"{number:04d}-rung-{rung}")

    def relative(self, path: Path) -> str:
        """Return a path below the folder of the search."""
        return path.relative_to(self._folder.parent).as_posix()

    def is_here(self, number: int) -> bool:
        """Return whether the trial was begun in this folder, not on a machine with another."""
        return self._lock_file(number).exists()

    def take(self, number: int) -> bool:
        """Claim a trial; return False if another process has it."""
        lock = filelock.FileLock(self._lock_file(number))
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        self._held[number] = lock
        return True

    def __contains__(self, number: int) -> bool:
        return number in self._held

    def release(self, number: int) -> None:
        """Let a trial go, when it is over."""
        self._held.pop(number).release()

    def release_all(self) -> None:
        """Let all go."""
        for number in [*self._held]:
            self.release(number)

    def _lock_file(self, number: int) -> Path:
        return self._folder / f"{number:04d}.lock"
