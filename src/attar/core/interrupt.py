"""Interrupt: a Ctrl-C that no library can swallow.

Python raises KeyboardInterrupt wherever it is when the signal comes. In a finalizer, or in a callback of an extension
that takes any exception for an answer, that is lost, and the work goes on for hours as if nobody had asked. So the
signal is remembered too, and long work asks at each step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_heard = False


@contextmanager
def listening() -> Iterator[None]:
    """Remember a SIGINT that comes while the block runs, besides what is done about it anyway.

    An error that leaves the block after one becomes KeyboardInterrupt: an exception that was taken for another fault.
    Does nothing off the main thread, where Python lets no handler be set, and where SIGINT is ignored.
    """
    global _heard
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        global _heard
        _heard = True
        before(number, frame)

    _heard = False
    signal.signal(signal.SIGINT, hear)
    try:
        yield
    except Exception:
        heed()
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        _heard = False


def heed() -> None:
    """Raise KeyboardInterrupt if SIGINT has come since :func:`listening` began.

    Raises:
        KeyboardInterrupt: it has.
    """
    if _heard:
        raise KeyboardInterrupt
