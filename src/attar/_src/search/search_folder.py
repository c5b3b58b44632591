"""The folder of a search: a journal while it runs, the files it made, and at the end the best of them and a page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import filelock

from attar._src.artifact.writer import write_atomically
from attar._src.core.digest import file_digest
from attar._src.core.errors import AttarError, SpecError
from attar._src.pipeline.journal import RUN_FACTS, Journal
from attar._src.report.search_page import write_search_page
from attar._src.report.wording import clock, plural
from attar._src.search.tried_file import TriedFile

SEARCH_JOURNAL = "journal.jsonl"
#: The result, for scripts.
SEARCH = "search.json"
#: The file that is recommended.
BEST = "best.attar"
#: Held while a search is active.
LOCK = "lock"
#: Folder of all files.
FILES = "files"
#: The trials of a recipe with holes; only its searches have it, and no journal.
STORAGE = "trials.db"
#: Folder of the recipes that were run, one below it for each.
TRIALS = "trials"


class JournaledFolder:
    """A folder of files that were tried, with a journal: what searches for goals and comparisons share.

    Attributes:
        what: begins the journal, so that neither goes on in a folder of the other, or of a run.
        command: that has such folders.

    Args:
        path: made if it is missing.
        resume: go on with what is there.

    Raises:
        SpecError: it is a file, has a journal that was not asked to go on, or one of another command.
        AttarError: its journal is damaged.
    """

    what: ClassVar[str]
    command: ClassVar[str]

    def __init__(self, path: Path, *, resume: bool) -> None:
        demand_search_folder(path, resume=resume)
        # Another command may be writing to it.
        first = next(iter(Journal(path / SEARCH_JOURNAL, writes=False).rows), None)
        if first is not None and (first["event"] != "begin" or first.get("what") != self.what):
            raise SpecError(f"{path} has no {self.what} of {self.command} but another command's; name another folder")
        (path / FILES).mkdir(parents=True, exist_ok=True)
        self.path = path

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self.path / SEARCH_JOURNAL, writes=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from going on in the folder inside the block.

        Raises:
            AttarError: another process does.
        """
        lock = filelock.FileLock(self.path / LOCK)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise AttarError(
                f"another {self.what} is active in {self.path}; wait for it, or name another folder"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def decide(self, what: str, choose: Callable[[], Any]) -> Any:
        """Return the journaled decision on ``what``; without one choose, and journal it."""
        before = self.decided(what)
        return self._journal.decide(what, choose()) if before is None else before

    def decided(self, what: str) -> Any:
        """Return the journaled decision on ``what``, None without one."""
        before = self._journal.find("decided", what=what)
        return before[-1]["value"] if before else None

    @contextmanager
    def counting_cuts(self, name: str) -> Iterator[None]:
        """Write to the journal what a step took inside the block if it is interrupted."""
        begun = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self._journal.add("cut", name=name, seconds=time.monotonic() - begun)
            raise

    def cut_seconds(self, name: str) -> float:
        """Return what a step took each time that it was interrupted, together."""
        return sum(float(row["seconds"]) for row in self._journal.find("cut", name=name))

    def spent(self) -> float:
        """Return the seconds of all steps in the journal: those that made a file, failed, or were interrupted."""
        return sum(float(row["seconds"]) for row in self._journal.rows if "seconds" in row)

    def going_on(self, files: int) -> str:
        """Return in words with what a resumed search begins; empty for a new one."""
        spent = self.spent()
        return f"goes on with {plural(files, 'file')}; {clock(spent)} were spent before" if files or spent else ""

    def has(self, file: str, sha256: str) -> bool:
        """Return whether a file is there, with the bytes that the journal says."""
        path = self.path / file
        return path.is_file() and file_digest(path) == sha256

    def _go_on(self, facts: Mapping[str, Any]) -> None:
        """Journal the facts, or compare them with those that are there.

        Raises:
            SpecError: others are there; the message has what differs.
        """
        plain, before = json.loads(json.dumps(facts)), self._journal.find("begin")
        if not before:
            self._journal.add("begin", what=self.what, facts=plain)
            return
        known = before[0]["facts"]
        if differing := [key for key in {**known, **plain} if known.get(key) != plain.get(key)]:
            raise SpecError(
                f"{self.path} has a {self.what} with another {' and '.join(differing)}; name another folder, or remove "
                f"this one for a new {self.what}"
            )


class SearchFolder(JournaledFolder):
    """A folder with what was tried so far; arguments and errors as of :class:`JournaledFolder`."""

    what: ClassVar[str] = "search"
    command: ClassVar[str] = "attar compress"

    def begin(self, facts: Mapping[str, Any]) -> tuple[list[TriedFile], dict[str, str]]:
        """Return the files that are there, and the steps that failed with their reasons.

        A file that is missing or has other bytes than the journal says is made again.

        Raises:
            SpecError: the folder has another search; the message has what differs.
        """
        self._go_on(facts)
        files = {row["file"]["name"]: TriedFile.model_validate(row["file"]) for row in self._journal.find("file")}
        failed = {row["name"]: str(row["reason"]) for row in self._journal.find("failed")}
        return [each for each in files.values() if self.has(each.file, each.sha256)], failed

    def add(self, file: TriedFile) -> None:
        """Write a file to the journal."""
        self._journal.add("file", file=file.model_dump(mode="json"), seconds=file.seconds)

    def fail(self, name: str, reason: str, seconds: float) -> None:
        """Write to the journal that a step made no file."""
        self._journal.add("failed", name=name, reason=reason, seconds=seconds)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, the page, and the recommended file as ``best.attar``."""
        best = result["best"]
        if best is not None:
            found = next(each for each in result["files"] if each["name"] == best)
            write_atomically(self.path / BEST, (self.path / found["file"]).read_bytes())
        write_atomically(self.path / SEARCH, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
        write_search_page(self.path, result)


def demand_search_folder(path: Path, *, resume: bool) -> None:
    """Refuse a folder that cannot have a search with a journal, or has one that was not asked to go on.

    Raises:
        SpecError: the message has what to do.
    """
    _demand_folder(path)
    if (path / STORAGE).exists() or ((path / SEARCH).exists() and not (path / SEARCH_JOURNAL).exists()):
        raise SpecError(f"{path} has a search of a recipe with holes; name another folder")
    if (path / SEARCH_JOURNAL).exists() and not resume:
        raise SpecError(f"{path} has a search already; go on with it (resume=True), or name another folder")


def demand_trials_folder(path: Path) -> None:
    """Refuse a folder that cannot have a search of a recipe with holes.

    Raises:
        SpecError: the message has what to do.
    """
    _demand_folder(path)
    if (path / SEARCH_JOURNAL).exists():
        raise SpecError(f"{path} has a search or comparison without holes; name another folder")


def _demand_folder(path: Path) -> None:
    """Refuse a file, and the folder of a run: what is written there would be lost, or mixed up."""
    if path.exists() and not path.is_dir():
        raise SpecError(f"{path} is a file; name a folder for the results")
    if (path / RUN_FACTS).exists():
        raise SpecError(f"{path} has a run; name another folder for the results")
