"""Two processes that exchange JSON over a socket, and arrays through memory that both have open.

Nothing is pickled, and neither side maps the memory: what the other cuts short is a short read, not a SIGBUS.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact import jsontext
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import Shape

_HEAD = struct.Struct(">I")
_LONGEST = 1 << 24  # bytes of a message
_VALUES = 1 << 20
_ALIGN = 64
_STEP = 1 << 30  # bytes of one system call


class Channel:
    """One side of the exchange.

    Args:
        connection: its end of a pair of sockets.
        memory: descriptor of a file in memory; both sides have it open.
    """

    def __init__(self, connection: socket.socket, memory: int) -> None:
        self.connection, self.memory = connection, memory

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        text = jsontext.write_json(message)
        self.connection.sendall(_HEAD.pack(len(text)) + text)

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """Wait for a message, for at most ``seconds`` if they are given.

        Raises:
            EOFError: the other side is gone.
            ArtifactError: what it sent is not a JSON object, or too long.
            TimeoutError: the whole message did not come in time.
        """
        end = None if seconds is None else time.monotonic() + seconds
        (length,) = _HEAD.unpack(self._exactly(_HEAD.size, end))
        if length > _LONGEST:
            raise ArtifactError(f"a message of {length} bytes is longer than {_LONGEST}")
        return jsontext.parse_json(self._exactly(length, end), values=_VALUES)

    def put(self, arrays: Iterable[NDArray[Any]]) -> None:
        """Write arrays into the memory, one after the other, each at a multiple of 64 bytes."""
        at = 0
        for array in arrays:
            data = _bytes(np.ascontiguousarray(array))
            for start in range(0, len(data), _STEP):
                _write(self.memory, data[start : start + _STEP], at + start)
            at = _after(at, len(data))

    def take(self, forms: Sequence[tuple[np.dtype[Any], Shape]]) -> list[NDArray[Any]]:
        """Read arrays of these types and shapes from the memory, as :meth:`put` has laid them out.

        Raises:
            ArtifactError: the memory ends before them.
        """
        found, at = [], 0
        for dtype, shape in forms:
            array = np.empty(shape, dtype)
            data = _bytes(array)
            _read(self.memory, data, at)
            found.append(array)
            at = _after(at, len(data))
        return found

    def close(self) -> None:
        """Close both ends of this side."""
        self.connection.close()
        os.close(self.memory)

    def _exactly(self, count: int, end: float | None) -> bytes:
        parts: list[bytes] = []
        while count:
            if end is not None:
                # Of what is left: a timeout of the socket alone would begin anew with each byte.
                self.connection.settimeout(max(end - time.monotonic(), 1e-3))
            part = self.connection.recv(min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def shared_memory() -> int:
    """Return the descriptor of an empty file in memory, or of one without a name where the system has no such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("attar")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _bytes(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array, to read or to write."""
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _after(at: int, length: int) -> int:
    return -(-(at + length) // _ALIGN) * _ALIGN


def _write(memory: int, data: memoryview, at: int) -> None:
    while data:
        done = os.pwrite(memory, data, at)
        data, at = data[done:], at + done


def _read(memory: int, data: memoryview, at: int) -> None:
    while data:
        done = os.preadv(memory, [data[:_STEP]], at)
        if not done:
            raise ArtifactError("the memory shared with the process that runs the file was cut short")
        data, at = data[done:], at + done
