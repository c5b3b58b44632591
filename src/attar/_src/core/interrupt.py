"""Interrupt: a Ctrl-C that no library can swallow.

Python raises KeyboardInterrupt wherever it is when the signal comes. In a finalizer, or in a callback of an extension
that takes any exception for an answer, that is lost, and the work goes on for hours as if nobody had asked. So it is
remembered too, and long work asks at each step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Whether KeyboardInterrupt was raised since somebody listens; None where nobody does.
_heard: bool | None = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Remember a KeyboardInterrupt that SIGINT raises while the block runs, and see that it leaves the block.

    An error that leaves the block after one becomes KeyboardInterrupt too: it may be the same one in another guise. A
    handler of the caller's that raises nothing has its way. Of blocks in each other the outermost listens. Off the
    main thread, where Python lets no handler be set, and where SIGINT is ignored, nothing is remembered.

    Raises:
        KeyboardInterrupt: it was raised within, whatever became of it.
    """
    global _heard
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before) or _heard is not None:
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        global _heard
        try:
            before(number, frame)
        except KeyboardInterrupt:
            if _heard is not None:
                _heard = True
            raise

    try:
        _heard = False
        signal.signal(signal.SIGINT, hear)
        yield
        raise_if_interrupted()
    except Exception:
        raise_if_interrupted()
        raise
    finally:
        # In this order: a signal that comes between leaves a handler behind that remembers nothing.
        _heard = None
        signal.signal(signal.SIGINT, before)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt again if one was raised since :func:`listening` began; elsewhere do nothing.

    Raises:
        KeyboardInterrupt: it was.
    """
    if _heard:
        raise KeyboardInterrupt
