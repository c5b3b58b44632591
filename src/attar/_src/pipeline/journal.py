"""Journal: what happened in a run, one JSON object a line, each on disk before the run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from attar._src.core.errors import AttarError
from attar._src.core.interrupt import raise_if_interrupted


class Journal:
    """The rows of ``journal.jsonl``: decisions, stages begun and done, one row an epoch, files written.

    A row that was being written when the run was killed is dropped when the journal is opened for writing.

    Args:
        path: the file.
        writes: whether rows are added; ranks but the first only read.

    Attributes:
        rows: in order.

    Raises:
        AttarError: another row is damaged; it is named.
    """

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path, self.writes = path, writes
        whole = path.read_bytes() if path.exists() else b""
        kept = whole[: whole.rfind(b"\n") + 1]
        if writes and kept != whole:
            os.truncate(path, len(kept))
        self.rows: list[dict[str, Any]] = [self._row(*each) for each in enumerate(kept.split(b"\n")[:-1], 1)]

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or "event" not in row:
            raise AttarError(
                f"{self.path}, line {number}: {line[:40]!r} is no row of a journal; "
                "the run cannot be gone on with: put the file back as it was, or run in another folder"
            )
        return row

    def add(self, event: str, **facts: Any) -> None:
        """Append a row and put it on the disk. Ranks but the first add nothing.

        Raises:
            OSError: the disk is full or may not be written.
            KeyboardInterrupt: the run was interrupted, and the exception was swallowed on its way.
        """
        raise_if_interrupted()
        if not self.writes:
            return
        row = {"event": event, **facts}
        line = (json.dumps(row) + "\n").encode()
        with open(self.path, "ab", buffering=0) as file:
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
        """Return the rows of an event that have these facts."""
        return [
            row
            for row in self.rows
            if row["event"] == event and all(row.get(key) == value for key, value in where.items())
        ]

    def decide(self, what: str, value: Any, **facts: Any) -> Any:
        """Return what was decided before; where nothing was, journal ``value`` and return it."""
        before = self.find("decided", what=what)
        if before:
            return before[-1]["value"]
        self.add("decided", what=what, value=value, **facts)
        return value
