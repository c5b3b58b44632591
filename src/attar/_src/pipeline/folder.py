"""Folder: what a run leaves on the disk, and what a resumed one goes on from.

recipe.yaml     the recipe as run, defaults and decisions written out
run.json        versions, seeds, and SHA-256 of data and of the user's files: what must be the same to resume
journal.jsonl   what happened (``pipeline.journal``)
lock            held while a run is on
state/          checkpoints: seed-N/MODEL/STAGE
logs/           TensorBoard and CSV, written anew from the journal when a run resumes
NAME.attar, report.json, report.html
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError, SpecError
from attar._src.pipeline.journal import Journal
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.yaml_text import format_yaml
from attar._src.train.store import CheckpointStore

RECIPE = "recipe.yaml"
_RUN, _LOCK, _STATE, _LOGS = "run.json", "lock", "state", "logs"
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_MISSING = object()
#: What a write that was cut short leaves behind; a cache that grows has no number in its name.
_LEFT_OVER = re.compile(r"\..+\.\d+\.part")


class RunFolder:
    """The folder of one run.

    Args:
        path: where it is.
        facts: what must be the same to resume, JSON values by name; the recipe is among them.
        resume: whether an earlier run may be gone on with.
        first: whether this is the first rank; the others only read.

    Raises:
        SpecError: there is a run already and it is not to be resumed, or something it depends on has changed.
        AttarError: another run is on in this folder, its journal is damaged, or it cannot be written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], *, resume: bool, first: bool) -> None:
        self.path, self.first = path, first
        self._lock = filelock.FileLock(path / _LOCK)
        if first:
            self._claim(facts, resume)
        try:
            self.journal = Journal(path / "journal.jsonl", writes=first)
        except BaseException:
            self._lock.release()
            raise

    def _claim(self, facts: Mapping[str, Any], resume: bool) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise AttarError(f"another run is on in {self.path}; wait for it, or choose another folder") from None
        try:
            for part in self.path.rglob(".*.part"):
                if _LEFT_OVER.fullmatch(part.name):
                    part.unlink()
            known = {entry.name for entry in self.path.iterdir()} - {_LOCK}
            if _RUN in known:
                self._compare(facts, resume)
            elif known:
                raise SpecError(f"{self.path} is not empty and holds no run; choose another folder")
            else:
                # On disk before anything that depends on it.
                write_atomically(self.path / _RUN, _json(facts))
        except BaseException:
            self._lock.release()
            raise

    def _compare(self, facts: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise SpecError(f"{self.path} holds a run already; resume it (--resume), or choose another folder")
        changed = list(differences(json.loads((self.path / _RUN).read_bytes()), json.loads(_json(facts))))
        if changed:
            more = f"; and {len(changed) - 4} more" if len(changed) > 4 else ""
            raise SpecError(
                f"{self.path} cannot be resumed, it would end in other bytes: {'; '.join(changed[:4])}{more}; "
                "change it back, or run in another folder"
            )

    def close(self) -> None:
        """Let other runs have the folder."""
        self._lock.release()

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe as run: run again from there, it gives the same."""
        if self.first:
            root = os.path.relpath(recipe.folder.resolve(), self.path.resolve())
            told = recipe.described() | {"root": root}
            write_atomically(self.path / RECIPE, format_yaml(told))

    def files(self, seed: int, first_seed: int) -> Path:
        """Return the folder of a seed's files: the run's own for the first seed."""
        found = self.path if seed == first_seed else self.path / f"seed-{seed}"
        if self.first:
            found.mkdir(exist_ok=True)
        return found

    def store(self, seed: int, model: str, index: int, stage: str) -> CheckpointStore:
        """Return where a stage keeps its checkpoints."""
        return CheckpointStore(self.state / f"seed-{seed}" / model / f"{index}-{stage}")

    @property
    def state(self) -> Path:
        """The folder of checkpoints and caches."""
        return self.path / _STATE

    def fresh_logs(self) -> Path:
        """Return the folder of the logs, emptied: they are written anew from the journal."""
        if self.first:
            shutil.rmtree(self.path / _LOGS, ignore_errors=True)
        return self.path / _LOGS


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what to do.

    Raises:
        AttarError: what was being written could not be; what was complete before is there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        what = error.filename or path
        raise AttarError(
            f"{what} cannot be written ({error.strerror}); what is complete in {path} is kept: make room or give "
            "permission, and resume the run (--resume)"
        ) from error


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield ``path: was X, is Y`` for everything two JSON values differ in."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            where = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key, _MISSING), after.get(key, _MISSING), where)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{path}.{index}")
    elif before != after:
        yield f"{path} was {_short(before)} and is {_short(after)}"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(value: Any) -> str:
    if value is _MISSING:
        return "not there"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
