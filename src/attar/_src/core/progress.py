"""Progress on standard error: bars for work that takes over two seconds, lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Sized
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from attar._src.core.interrupt import raise_if_interrupted

_T = TypeVar("_T")
_PATIENCE = 2.0
_LINE_EVERY = 10.0


class Bar:
    """Steps done, all steps and time left; appears after two seconds.

    Where standard error is no terminal, such as a log file, it is a line every ten seconds. ``done`` steps were done
    before the start; all ranks but the first pass ``shown=False``.
    """

    def __init__(self, what: str, total: int | None, *, done: int = 0, shown: bool = True) -> None:
        self.what = what
        self._total, self._before, self._done, self._shown = total, done, done, shown
        self._text = ""
        self._progress: Progress | None = None
        if shown and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(what, total=total, completed=done)
        self._start = self._said = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self) -> None:
        """Count one more step."""
        self._done += 1
        now = time.monotonic()
        if self._progress is not None:
            self._progress.advance(self._task)
            if not self._progress.live.is_started and now - self._start > _PATIENCE:
                self._progress.start()
        elif self._shown and now - self._said > _LINE_EVERY:
            self._said = now
            with suppress(OSError):
                sys.stderr.write(f"{self._line(now - self._start)}\n")
                sys.stderr.flush()

    def say(self, text: str) -> None:
        """Show ``what: text``, such as ``training: epoch 2/3, loss 0.5``."""
        self._text = text
        if self._progress is not None:
            self._progress.update(self._task, description=f"{self.what}: {text}")

    def _line(self, seconds: float) -> str:
        """Return ``training: epoch 2/3, loss 0.5: 240 of 600, 0:00:15 left``."""
        said = f"{self.what}: {self._text}" if self._text else self.what
        if self._total is None:
            return f"{said}: {self._done}"
        left = seconds / (self._done - self._before) * max(self._total - self._done, 0)
        return f"{said}: {self._done} of {self._total}, {timedelta(seconds=round(left))} left"


def track(items: Iterable[_T], what: str) -> Generator[_T, None, None]:
    """Yield ``items`` under a :class:`Bar`; raise a KeyboardInterrupt that the work on an item swallowed."""
    with Bar(what, len(items) if isinstance(items, Sized) else None) as bar:
        for item in items:
            yield item
            raise_if_interrupted()
            bar.step()
