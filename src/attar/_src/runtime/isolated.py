"""A wall between a file and its user: the file is decoded, checked and run in a process of its own.

The process has bounded memory and time and is killed with the session. Its user reads from it JSON of known form and
arrays of known type and rank, nothing else. The wall holds crashes, hangs and exhausted memory. It is no sandbox: code
that a fault in a kernel lets a file execute has the rights of the user's account.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.manifest import Port
from attar._src.artifact.reader import Artifact
from attar._src.core.errors import ArtifactError, AttarError, DataError, SpecError
from attar._src.core.tensors import DTYPES
from attar._src.runtime.channel import Channel, shared_memory

_KEPT = """
    PATH TMPDIR LD_LIBRARY_PATH DYLD_LIBRARY_PATH NUMBA_CACHE_DIR NUMBA_DISABLE_JIT OMP_NUM_THREADS
    ORT_DISABLE_TELEMETRY"""
_ERRORS: dict[str, type[AttarError]] = {"ArtifactError": ArtifactError, "DataError": DataError}
_SECTION = "process"
_TEXT = 2000  # characters of a message or reason that are shown


@dataclass(frozen=True)
class Bounds:
    """Bounds of the process of an isolated session.

    Attributes:
        memory: bytes of address space, interpreter and libraries (about 300 MiB) included.
        seconds: wall-clock time of one step: opening, or one run.
    """

    memory: int = 4 << 30
    seconds: float = 60.0


class IsolatedGraph:
    """A graph of a file in a process of its own.

    Raises:
        ArtifactError: the file is malformed, or its process crashed or exceeded its bounds.
        SpecError: the system has no such processes (Windows).
    """

    def __init__(
        self,
        artifact: Artifact,
        graph: str,
        outputs: Sequence[Port],
        threads: int | None,
        bounds: Bounds,
        weights: str,
    ) -> None:
        if os.name != "posix":
            raise SpecError("isolated=True needs Linux or macOS; run untrusted files there")
        self._outputs, self._bounds = outputs, bounds
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours, shared_memory())
        with theirs:
            self._process = _start(theirs, self._channel.memory, bounds)
        self._end = weakref.finalize(self, _kill, self._process, self._channel)
        data = np.frombuffer(artifact.data, np.uint8)
        limits = artifact.limits.model_dump()
        how = {"graph": graph, "threads": threads, "limits": limits, "weights": weights}
        reply = self._ask({"ask": "open", "bytes": data.size, **how}, [data])
        #: Compressed tensor -> why it was converted to float32.
        self.dequantized: Mapping[str, str] = {
            _text(name): _text(reason) for name, reason in _pairs(reply.get("dequantized"), 2)
        }

    def run(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs in order."""
        forms = [[name, _code(array), list(array.shape)] for name, array in feed.items()]
        with self._lock:
            reply = self._ask({"ask": "run", "inputs": forms}, list(feed.values()))
            shapes = reply.get("shapes")
            if not isinstance(shapes, list) or len(shapes) != len(self._outputs):
                raise self._broken("it sent no shapes")
            wanted = [
                (DTYPES[port.dtype], self._shape(port, shape))
                for port, shape in zip(self._outputs, shapes, strict=True)
            ]
            # An axis of 0 makes an array empty, but numpy refuses it beside one that is too long.
            sizes = [dtype.itemsize * math.prod(max(length, 1) for length in shape) for dtype, shape in wanted]
            if sum(sizes) > self._bounds.memory:
                raise self._broken("its outputs are larger than its memory")
            return self._channel.take(wanted)

    def layers(self) -> list[tuple[str, tuple[str, ...], str, bool, str, str]]:
        """Return the fields of every :class:`Layer`."""
        with self._lock:
            rows = _pairs(self._ask({"ask": "layers"}).get("layers"), 6)
        return [(_text(a), _texts(b), _text(c), d is True, _text(e), _text(f)) for a, b, c, d, e, f in rows]

    def close(self) -> None:
        """End the process."""
        self._end()

    def _ask(self, message: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> dict[str, Any]:
        if not self._end.alive:
            raise ArtifactError("the session is closed; open the file again", section=_SECTION)
        try:
            self._channel.connection.settimeout(self._bounds.seconds + 1)
            self._channel.put(arrays)
            self._channel.send({**message, "seconds": self._bounds.seconds})
            reply = self._channel.receive(self._bounds.seconds + 1)
        except TimeoutError as error:
            raise self._broken(f"it took more than {self._bounds.seconds:g} s") from error
        except (EOFError, OSError) as error:
            raise self._broken(self._last_words()) from error
        except BaseException:  # an interrupted exchange cannot be taken up again
            self.close()
            raise
        if "error" in reply:
            raise _ERRORS.get(str(reply["error"]), ArtifactError)(_text(reply.get("message")))
        return reply

    def _last_words(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        if code == -signal.SIGALRM:
            return f"it took more than {self._bounds.seconds:g} s"
        return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"

    def _broken(self, why: str) -> ArtifactError:
        self.close()
        return ArtifactError(f"the file broke the process that runs it: {why}", section=_SECTION)

    def _shape(self, port: Port, shape: Any) -> tuple[int, ...]:
        """Return the shape of an output that the process has sent if the port can have it."""
        fits = (
            isinstance(shape, list) and len(shape) == len(port.shape) and all(type(n) is int and n >= 0 for n in shape)
        )
        if not fits or any(isinstance(axis, int) and axis != n for axis, n in zip(port.shape, shape, strict=True)):
            raise self._broken(f"the output {port.name!r} came with the shape {_text(str(shape))[:80]}")
        return tuple(shape)


def _start(theirs: socket.socket, memory: int, bounds: Bounds) -> subprocess.Popen[bytes]:
    """Start the process with an environment of its own; ``-P`` keeps the current folder out of its imports."""
    environment = {name: os.environ[name] for name in _KEPT.split() if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    descriptors = (theirs.fileno(), memory)
    arguments = [str(number) for number in (*descriptors, bounds.memory)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "attar._src.runtime.child", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=descriptors,
        env=environment,
        start_new_session=True,
    )


def _kill(process: subprocess.Popen[bytes], channel: Channel) -> None:
    process.kill()
    process.wait()
    channel.close()


def _code(array: NDArray[Any]) -> str:
    return next(code for code, dtype in DTYPES.items() if dtype == array.dtype and code != "bf16")


def _pairs(rows: Any, width: int) -> list[list[Any]]:
    """Return the rows of a table that the process has sent; what is no row is left out."""
    return [row for row in rows if isinstance(row, list) and len(row) == width] if isinstance(rows, list) else []


def _text(value: Any) -> str:
    """Return a string that the process has sent, without control characters."""
    text = value if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:_TEXT])


def _texts(value: Any) -> tuple[str, ...]:
    """Return the strings of a list that the process has sent; those of anything else are none."""
    return tuple(map(_text, value)) if isinstance(value, list) else ()
