"""Progress on anything that takes over two seconds: a bar with an ETA on a terminal's standard error, else nothing."""

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


def track(items: Iterable[_T], what: str, total: int | None = None) -> Generator[_T, None, None]:
    """Yield ``items``; once two seconds have passed and standard error is a terminal, show how far along they are.

    Args:
        items: what is worked through.
        what: a word or two about the work.
        total: how many there are, where ``items`` has no length.

    Raises:
        KeyboardInterrupt: in a run: the work on an item was interrupted, and the exception was swallowed on its way.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    bar = None
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(what, total=total)
    start = time.monotonic()
    try:
        for item in items:
            yield item
            raise_if_interrupted()
            if bar is not None:
                bar.advance(task)
                if not bar.live.is_started and time.monotonic() - start > _PATIENCE:
                    bar.start()
    finally:
        if bar is not None:
            bar.stop()
