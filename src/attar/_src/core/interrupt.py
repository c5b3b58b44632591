"""A Ctrl-C that libraries cannot swallow.

A KeyboardInterrupt that is raised in a finalizer, or in a callback of an extension that catches every exception, is
lost. So the signal is also recorded, and long loops check it at each step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Whether KeyboardInterrupt was raised inside :func:`interruptible`; None outside.
_heard: bool | None = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Record a KeyboardInterrupt that SIGINT raises inside the block, and raise it at the end of the block.

    An error after the signal becomes KeyboardInterrupt too, as the signal may be its cause. Handlers that do not raise
    are respected. Only the outermost of nested blocks records, and only in the main thread (Python allows no other).

    Raises:
        KeyboardInterrupt: it was raised inside the block, even if it was caught there.
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
        # In this order: a signal between the two statements then meets a handler that records nothing.
        _heard = None
        signal.signal(signal.SIGINT, before)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if :func:`interruptible` has recorded one."""
    if _heard:
        raise KeyboardInterrupt
