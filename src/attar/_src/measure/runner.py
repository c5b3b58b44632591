"""A model that can be run and timed, ours or another's, under the same settings."""

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
        run: from inputs by name to outputs by name, in order.
        session: the session behind it, if the file is a ``.attar`` file.
    """

    path: Path
    inputs: tuple[str, ...]
    run: Callable[[InputArrays], InputArrays]
    session: Session | None = None

    def feed(self, feed: InputArrays) -> InputArrays:
        """Return the same arrays under the names of this model's inputs, by position.

        Raises:
            DataError: the number of inputs differs.
        """
        if len(feed) != len(self.inputs):
            raise DataError(f"{self.path} takes {len(self.inputs)} inputs, the model it is compared with {len(feed)}")
        return dict(zip(self.inputs, feed.values(), strict=True))


def open_runner(path: Path, *, threads: int | None = None) -> Runner:
    """Open a ``.attar`` file, or a ``.onnx`` file with ONNX Runtime directly.

    Raises:
        ArtifactError: the file cannot be read, or ONNX Runtime refuses it.
    """
    if path.suffix == ".onnx":
        return open_onnx(path, threads=threads)
    session = Session(path, threads=threads)
    return Runner(path, tuple(port.name for port in session.inputs), session.run, session)


def open_onnx(path: Path, *, threads: int | None = None) -> Runner:
    """Open an ONNX file with ONNX Runtime.

    Raises:
        ArtifactError: the file cannot be read, or ONNX Runtime refuses it.
    """
    if not path.is_file():
        raise ArtifactError(missing_file(path))
    engine = Engine(path, threads=threads)
    names = engine.outputs

    def run(feed: InputArrays) -> InputArrays:
        return dict(zip(names, engine.run(feed), strict=True))

    return Runner(path, engine.inputs, run)


def example_feed(runner: Runner, batch: int) -> InputArrays:
    """Return inputs to time a file on: normal numbers of a fixed seed, and zeros for integers, which may be indices.

    Raises:
        DataError: the file is not a ``.attar`` file, which has example sizes; or its batch is fixed to another size.
    """
    if runner.session is None:
        raise DataError(f"{runner.path} has no example sizes; put a .attar file first")
    rng = np.random.default_rng(0)
    feed: dict[str, NDArray[Any]] = {}
    for name, zeros in runner.session.example(batch).items():
        if zeros.ndim and len(zeros) != batch:
            raise DataError(f"input {name!r} has a fixed batch of {len(zeros)}; use --batch {len(zeros)}")
        real = zeros.dtype.kind == "f"
        feed[name] = rng.standard_normal(zeros.shape).astype(zeros.dtype) if real else zeros
    return feed
