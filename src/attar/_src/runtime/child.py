"""The process of an isolated session: ``python -m attar._src.runtime.child SOCKET MEMORY BYTES``.

It opens a file that its parent has put into the memory, and runs it until the connection ends. It may compute for a
given time at each step; then SIGALRM ends it, whether its parent is there or not.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

import numpy as np

from attar._src.artifact.limits import Limits
from attar._src.core.errors import AttarError, DataError, short_message
from attar._src.core.tensors import DTYPES
from attar._src.runtime.channel import Channel
from attar._src.runtime.session import Session

#: What ONNX Runtime says where memory ends.
_MEMORY = ("bad_alloc", "allocate memory", "bad allocation")


def serve(channel: Channel) -> None:
    """Answer until the connection ends."""
    session: Session | None = None
    while True:
        try:
            asked = channel.receive()
        except (EOFError, OSError):
            return
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
        try:
            session = _open(channel, asked) if session is None else session
            reply = _answer(channel, session, asked)
        except (AttarError, MemoryError) as error:
            reply = _refusal(error)
        except Exception as error:  # noqa: BLE001 -- the parent shows what no check foresaw
            reply = {"error": "ArtifactError", "message": short_message(error)}
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.send(reply)


def _open(channel: Channel, asked: dict[str, Any]) -> Session:
    (data,) = channel.take([(np.dtype(np.uint8), (asked["bytes"],))])
    limits = Limits.model_validate(asked["limits"])
    how = {name: asked[name] for name in ("graph", "threads", "weights")}
    return Session(data.tobytes(), limits=limits, **how)


def _answer(channel: Channel, session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    match asked["ask"]:
        case "open":
            return {"dequantized": [[name, reason] for name, reason in session.dequantized.items()]}
        case "layers":
            return {"layers": [[*vars(layer).values()] for layer in session.layers]}
        case _:
            forms = [(DTYPES[code], tuple(shape)) for _, code, shape in asked["inputs"]]
            names = [name for name, _, _ in asked["inputs"]]
            found = session.run(dict(zip(names, channel.take(forms), strict=True)))
            channel.put(found.values())
            return {"shapes": [[*array.shape] for array in found.values()]}


def _refusal(error: Exception) -> dict[str, Any]:
    message = str(error) or "no memory is left"
    if isinstance(error, MemoryError) or any(word in message for word in _MEMORY):
        return {"error": "ArtifactError", "message": f"the memory of its process is used up: {message}"}
    kind = "DataError" if isinstance(error, DataError) else "ArtifactError"
    return {"error": kind, "message": message}


def _limit(memory: int) -> None:
    """Bound the address space and the files of this process; no file of its memory is kept if it crashes."""
    import resource  # noqa: PLC0415 -- not on every system

    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, memory), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # macOS does not bound address spaces
            resource.setrlimit(kind, (most, most))


def serve_parent(connection: str, shared: str, memory: str) -> None:
    """Serve the parent at the other end of the socket."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit(int(memory))
    serve(Channel(socket.socket(fileno=int(connection)), int(shared)))


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        serve_parent(*sys.argv[1:])
    os._exit(0)
