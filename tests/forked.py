"""Processes of their own that need not import anything: an import of all that a run needs takes seconds, a fork none.

They are forked from a server that each worker of the tests starts when it is first needed, and not from the tests: what
tests left behind (threads, patches, seeds) is not in them.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.imported"])


class Forked:
    """A function in a process of its own.

    Attributes:
        process: that process.
        folder: where it writes its streams, ``out`` and ``err``.
    """

    def __init__(self, function, arguments, folder, *, cwd=ROOT, limits=()):
        """Start it.

        Args:
            function: one that a process can import; what it returns is the exit code, None is 0.
            arguments: of the function.
            folder: a folder for its streams.
            cwd: where it runs.
            limits: pairs of a limit of ``resource`` and its value.
        """
        self.folder = folder
        given = (function, arguments, str(folder), str(cwd), dict(os.environ), tuple(limits))
        self.process = _FORKS.Process(target=_begin, args=given)
        # The server, if there is none yet, imports from here.
        with contextlib.chdir(ROOT):
            self.process.start()

    @property
    def running(self):
        return self.process.is_alive()

    def interrupt(self):
        """Press Ctrl-C."""
        os.kill(self.process.pid, signal.SIGINT)

    def ended(self, seconds=250):
        """Wait for its end; return the exit code, negative for a signal, and what it wrote to its two streams."""
        self.process.join(seconds)
        assert not self.running, f"{self.process} has not ended within {seconds} s"
        return self.process.exitcode, *((self.folder / name).read_text() for name in ("out", "err"))


def attar_command(*arguments, folder, **options):
    """Start ``attar`` with these arguments."""
    return Forked(_attar, arguments, folder, **options)


def _attar(*arguments):
    from attar._src.cli import main

    return main(arguments)


def _begin(function, arguments, folder, cwd, environment, limits):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    for which, most in limits:
        resource.setrlimit(which, (most, most))
    try:
        code = function(*arguments)
    except BaseException:  # noqa: BLE001 - told as Python tells it at the end of a process
        traceback.print_exc()
        code = 1
    sys.exit(code)
