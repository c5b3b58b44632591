"""Opened models, ``.attar`` and ``.onnx``, run and timed under the same settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import ArtifactError, DataError, missing_file
from attar._src.runtime.engine import Engine
from attar._src.runtime.session import Session

InputArrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Runner:
    """An opened model.

    Attributes:
        path: its file.
        inputs: names of its inputs, in order.
        run: inputs by name -> outputs by name, in order.
        session: of a ``.attar`` file.
    """

    path: Path
    inputs: tuple[str, ...]
    run: Callable[[InputArrays], InputArrays]
    session: Session | None = None

    def feed(self, feed: InputArrays) -> InputArrays:
        """Return the same arrays under the names of this model's inputs, by position."""
        if len(feed) != len(self.inputs):
            raise DataError(f"{self.path} takes {len(self.inputs)} inputs, the model it is compared with {len(feed)}")
        return dict(zip(self.inputs, feed.values(), strict=True))


def open_runner(path: Path, *, threads: int | None = None) -> Runner:
    """Open a ``.attar`` file, or a ``.onnx`` file with ONNX Runtime directly."""
    if path.suffix == ".onnx":
        return open_onnx(path, threads=threads)
    session = Session(path, threads=threads)
    return Runner(path, tuple(port.name for port in session.inputs), session.run, session)


def open_onnx(path: Path, *, threads: int | None = None) -> Runner:
    """Open an ONNX file with ONNX Runtime."""
    if not path.is_file():
        raise ArtifactError(missing_file(path))
    engine = Engine(path, threads=threads)
    names = engine.outputs

    def run(feed: InputArrays) -> InputArrays:
        return dict(zip(names, engine.run(feed), strict=True))

    return Runner(path, engine.inputs, run)


def example_feed(runner: Runner, batch: int) -> InputArrays:
    """Return inputs to time a ``.attar`` file on: normal numbers, and zeros for integers, which may be indices."""
    if runner.session is None:
        raise DataError(f"{runner.path} has no example sizes; put a .attar file first")
    rng = np.random.default_rng(0)
    feed: InputArrays = {}
    empty = runner.session.example(batch)
    for port in runner.session.inputs:
        name, zeros = port.name, empty[port.name]
        # Where the batch is fixed, a file does not say which axis of a recurrent state it is.
        known = zeros.shape[port.batch_axis :][:1] if port is runner.session.inputs[0] else zeros.shape
        if zeros.ndim and batch not in known:
            raise DataError(f"input {name!r} has a fixed batch of {known[0]}; use --batch {known[0]}")
        real = zeros.dtype.kind == "f"
        feed[name] = rng.standard_normal(zeros.shape).astype(zeros.dtype) if real else zeros
    return feed
