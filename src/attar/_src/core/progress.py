"""Progress bars on standard error, for work that takes over two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from attar._src.core.interrupt import raise_if_interrupted

_T = TypeVar("_T")
_PATIENCE = 2.0


class Bar:
    """Steps done, all steps and time left; appears after two seconds, if standard error is a terminal.

    ``done`` steps were done before the start; all ranks but the first pass ``shown=False``.
    """

    def __init__(self, what: str, total: int | None, *, done: int = 0, shown: bool = True) -> None:
        self.what = what
        self._progress: Progress | None = None
        if shown and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(what, total=total, completed=done)
        self._start = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
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
        """Show ``what: text``, such as ``training: epoch 2/3, loss 0.5``."""
        if self._progress is not None:
            self._progress.update(self._task, description=f"{self.what}: {text}")


def track(items: Iterable[_T], what: str) -> Generator[_T, None, None]:
    """Yield ``items`` under a :class:`Bar`; raise a KeyboardInterrupt that the work on an item swallowed."""
    with Bar(what, len(items) if isinstance(items, Sized) else None) as bar:
        for item in items:
            yield item
            raise_if_interrupted()
            bar.step()
