"""Bar: how far a training is, on a terminal's standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PATIENCE = 2.0


class Bar:
    """Steps done of all steps with the time left, and a text that changes; shown once two seconds have passed.

    Args:
        what: a word or two about the work.
        total: how many steps there are.
        done: how many of them are done before the start.
        shown: False for ranks that stay silent; where standard error is no terminal, all do.
    """

    def __init__(self, what: str, total: int, *, done: int = 0, shown: bool = True) -> None:
        self.what = what
        self._progress: Progress | None = None
        if shown and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(what, total=total, completed=done)
        self._start = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self) -> None:
        """Count one more step."""
        if self._progress is None:
            return
        self._progress.advance(self._task)
        if not self._progress.live.is_started and time.monotonic() - self._start > _PATIENCE:
            self._progress.start()

    def say(self, text: str) -> None:
        """Show ``text`` behind what the work is."""
        if self._progress is not None:
            self._progress.update(self._task, description=f"{self.what}: {text}")
