"""What a search for a goal found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attar._src.search.goal import Goal
from attar._src.search.recommended import with_gains
from attar._src.search.tried_file import TriedFile, pareto


@dataclass(frozen=True)
class CompressionResult:
    """What a search found.

    Attributes:
        folder: with the files, ``best.attar``, ``search.json`` and ``search.html``.
        goal: of the search.
        files: all that were made, in order.
        best: the recommended one; where none holds the goal, the nearest.
        met: whether it holds the goal.
        ended: why the search ended.
        failed: name of a step -> why it made no file.
        skipped: steps for which there was no time.
        validation: number of examples that judged.
    """

    folder: Path
    goal: Goal
    files: Sequence[TriedFile]
    best: TriedFile
    met: bool
    ended: str
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: Sequence[str] = ()
    validation: int | None = None

    @property
    def front(self) -> list[TriedFile]:
        """The files that no other one beats in bytes, drop and time, and the best, the largest first."""
        front = pareto(self.files)
        return front if self.best in front else sorted([*front, self.best], key=lambda each: -each.file_bytes)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return {
            "goal": self.goal.describe(),
            "words": self.goal.words(),
            "met": self.met,
            "best": self.best.name,
            "front": [each.name for each in self.front],
            "ended": self.ended,
            "files": with_gains(self.goal, self.files),
            "failed": dict(self.failed),
            "skipped": list(self.skipped),
            "validation": self.validation,
        }
