"""Journal: the events of a run, one JSON object per line, each on disk before the run continues."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from attar._src.artifact.files import no_link
from attar._src.core.errors import AttarError
from attar._src.core.interrupt import raise_if_interrupted

#: Beside the journal of a run from its start: what must be unchanged to resume it.
RUN_FACTS = "run.json"


class Journal:
    """The rows of ``journal.jsonl``: decisions, stages begun and done, epochs, files written.

    Only the first rank ``writes``. A last row cut off by a killed run is removed when it opens the journal.

    Raises:
        AttarError: a row is damaged; the message has its line.
    """

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path, self.writes = path, writes
        whole = path.read_bytes() if path.exists() else b""
        kept = whole[: whole.rfind(b"\n") + 1]
        if writes and kept != whole:
            os.truncate(path, len(kept))
        self.rows: list[dict[str, Any]] = [self._row(*each) for each in enumerate(kept.split(b"\n")[:-1], 1)]

    @classmethod
    def unwritten(cls) -> Self:
        """Return a journal without rows that nothing is written to."""
        return cls(Path(os.devnull), writes=False)

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or "event" not in row:
            raise AttarError(
                f"{self.path}, line {number}: {line[:40]!r} is no row of a journal, so the run cannot be resumed; "
                "restore the file, or run in another folder"
            )
        return row

    def add(self, event: str, **facts: Any) -> None:
        """Append a row and flush it to disk; does nothing on other ranks than the first.

        Raises:
            OSError: the disk is full or write-protected.
            KeyboardInterrupt: the run was interrupted and other code swallowed the exception.
        """
        raise_if_interrupted()
        if not self.writes:
            return
        row = {"event": event, **facts}
        line = (json.dumps(row) + "\n").encode()
        with open(self.path, "ab", buffering=0, opener=no_link) as file:
            size = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(28, os.strerror(28), str(self.path))
            except OSError:
                os.truncate(self.path, size)
                raise
            os.fsync(file.fileno())
        self.rows.append(row)

    def find(self, event: str, **where: Any) -> list[dict[str, Any]]:
        """Return the rows of an event with the given facts, as in ``find("epoch", seed=0, model="net")``."""
        wanted = {"event": event, **where}
        return [row for row in self.rows if wanted.items() <= row.items()]

    def decide(self, what: str, value: Any, **facts: Any) -> Any:
        """Return the journaled decision on ``what``, after journaling ``value`` if there is none yet."""
        before = self.find("decided", what=what)
        if before:
            return before[-1]["value"]
        self.add("decided", what=what, value=value, **facts)
        return value
