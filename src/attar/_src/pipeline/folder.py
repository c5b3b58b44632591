"""The folder of a run, from which an interrupted run resumes.

recipe.yaml     the recipe as run, with defaults and automatic choices
run.json        recipe, versions, SHA-256 of data and of the user's files: must be unchanged to resume
journal.jsonl   events of the run (``pipeline.journal``)
lock            held while the run is active
state/          checkpoints in seed-N/MODEL/INDEX-STAGE, teacher caches
logs/           TensorBoard and CSV, rewritten from the journal when a run resumes
NAME.attar, report.json, report.html
"""

from __future__ import annotations

import contextlib
import errno
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
from attar._src.pipeline.journal import RUN_FACTS, Journal
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.yaml_text import format_yaml
from attar._src.train.store import CheckpointStore

RECIPE = "recipe.yaml"
_LOCK, _JOURNAL = "lock", "journal.jsonl"
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_MISSING = object()
#: A file left by an interrupted atomic write. The part file of a cache, which is continued, has no number.
_LEFT_OVER = re.compile(r"\..+\.\d+\.part")


class RunFolder:
    """The folder of one run, locked until :meth:`close`.

    The JSON values in ``facts``, such as the recipe, must be unchanged to ``resume`` a run. Only the ``first`` rank
    writes.

    Raises:
        SpecError: the folder has a run and ``resume`` is false, a fact has changed, or the folder has other files.
        AttarError: another run is active in the folder, or the journal is damaged.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], *, resume: bool, first: bool) -> None:
        self.path, self.state, self.first = path, path / "state", first
        self._new = False
        self._lock = filelock.FileLock(path / _LOCK)
        if first:
            path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
            except filelock.Timeout:
                raise AttarError(f"another run is active in {path}; wait for it, or choose another folder") from None
        try:
            if first:
                self._claim(facts, resume)
            self.journal = Journal(path / _JOURNAL, writes=first)
        except BaseException:
            self._lock.release()
            raise

    def _claim(self, facts: Mapping[str, Any], resume: bool) -> None:
        for part in self.path.rglob(".*.part"):
            if _LEFT_OVER.fullmatch(part.name):
                part.unlink()
        known = {entry.name for entry in self.path.iterdir()} - {_LOCK}
        if RUN_FACTS in known:
            self._compare(facts, resume)
        elif known:
            raise SpecError(f"{self.path} is not empty and has no run; choose another folder")
        else:
            # On disk before anything that depends on these facts.
            write_atomically(self.path / RUN_FACTS, (json.dumps(facts, indent=2) + "\n").encode())
            self._new = True

    def _compare(self, facts: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise SpecError(f"{self.path} already has a run; resume it (resume=True), or choose another folder")
        changed = list(differences(self._facts(), json.loads(json.dumps(facts))))
        if changed:
            more = f"; and {len(changed) - 4} more" if len(changed) > 4 else ""
            raise SpecError(
                f"{self.path} cannot be resumed, its files would get other bytes: {'; '.join(changed[:4])}{more}; "
                "undo the change, or run in another folder"
            )

    def _facts(self) -> Any:
        try:
            return json.loads((self.path / RUN_FACTS).read_bytes())
        except (ValueError, RecursionError) as error:
            raise AttarError(
                f"{self.path / RUN_FACTS} is damaged ({error}), so it is not known what the run was made of; run in "
                "another folder"
            ) from error

    @property
    def is_new(self) -> bool:
        """Whether the run was begun by this process."""
        return self._new

    def refuse(self) -> None:
        """Forget a run that is refused before any training, so that the mended recipe can use the folder."""
        if self._new:
            for name in (_JOURNAL, RUN_FACTS):
                (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the folder for other runs."""
        self._lock.release()

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe as run; a run of that file gives the same bytes."""
        if self.first:
            root = os.path.relpath(recipe.folder.resolve(), self.path.resolve())
            write_atomically(self.path / RECIPE, format_yaml(recipe.described() | {"root": root}))

    def files(self, seed: int, first_seed: int) -> Path:
        """Return the folder of a seed's ``.attar`` files: for the first seed the run's own folder."""
        folder = self.path if seed == first_seed else self.path / f"seed-{seed}"
        if self.first:
            folder.mkdir(exist_ok=True)
        return folder

    def store(self, seed: int, model: str, index: int, stage: str) -> CheckpointStore:
        """Return the checkpoints of a stage."""
        return CheckpointStore(self.state / f"seed-{seed}" / model / f"{index}-{stage}")

    def fresh_logs(self) -> Path:
        """Empty the folder of the logs, which are rewritten from the journal, and return it."""
        logs = self.path / "logs"
        if self.first:
            shutil.rmtree(logs, ignore_errors=True)
        return logs


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the OSError of a full or read-only disk into an AttarError that says how to continue."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        what = error.filename or path
        raise AttarError(
            f"{what} cannot be written ({error.strerror}); completed files in {path} are intact: free space or grant "
            "permission, then resume the run (resume=True)"
        ) from error


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield every difference of two JSON values as ``recipe.seeds.0 was 0 and is 1``."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            where = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key, _MISSING), after.get(key, _MISSING), where)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{path}.{index}")
    elif before != after:
        yield f"{path} was {_short(before)} and is {_short(after)}"


def _short(value: Any) -> str:
    if value is _MISSING:
        return "not there"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
