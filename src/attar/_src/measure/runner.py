"""Opened models, ``.attar``, ``.onnx`` and OpenVINO's ``.xml``, run and timed under the same settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.limits import Limits
from attar._src.core.errors import ArtifactError, DataError, missing_file, short_message
from attar._src.runtime.engine import Engine
from attar._src.runtime.session import Session, WeightForm

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

    @property
    def file_bytes(self) -> int:
        """The size of its file; of OpenVINO's with the weights beside it."""
        weights = self.path.with_suffix(".bin")
        return self.path.stat().st_size + (weights.stat().st_size if self.path.suffix == ".xml" else 0)

    def feed(self, feed: InputArrays) -> InputArrays:
        """Return the same arrays under the names of this model's inputs, by position."""
        if len(feed) != len(self.inputs):
            raise DataError(f"{self.path} takes {len(self.inputs)} inputs, the model it is compared with {len(feed)}")
        return dict(zip(self.inputs, feed.values(), strict=True))


def open_runner(
    path: Path, *, threads: int | None = None, limits: Limits | None = None, weights: WeightForm = "auto"
) -> Runner:
    """Open a ``.attar`` file, a ``.onnx`` file with ONNX Runtime directly, or a ``.xml`` file with OpenVINO."""
    if path.suffix == ".onnx":
        return open_onnx(path, threads=threads)
    if path.suffix == ".xml":
        return open_openvino(path, threads=threads)
    session = Session(path, threads=threads, limits=limits, weights=weights)
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


def open_openvino(path: Path, *, threads: int | None = None) -> Runner:
    """Open a model of OpenVINO with its own choice of precision, which may be bfloat16 where a file says float32.

    Raises:
        ArtifactError: OpenVINO is not installed, there is no such file, or OpenVINO refuses it.
    """
    if not path.is_file():
        raise ArtifactError(missing_file(path))
    try:
        # Not at the top: an extra, whose import takes as long as opening a file.
        openvino: Any = importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise ArtifactError(f"{path} is a model of OpenVINO, which is not installed: pip install openvino") from error
    # A thread that is bound to one core waits for it: where others work, too, that took ten times as long as the run.
    settings = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    settings |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    try:
        request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise ArtifactError(f"OpenVINO refuses {path}: {short_message(error)}") from error
    model = request.get_compiled_model()
    inputs, outputs = ([port.get_any_name() for port in ports] for ports in (model.inputs, model.outputs))

    def run(feed: InputArrays) -> InputArrays:
        # No copy of the inputs, which stay as they are; outputs are copied, as the next run overwrites them.
        found = request.infer([feed[name] for name in inputs], share_inputs=True)
        return dict(zip(outputs, found.values(), strict=True))

    return Runner(path, tuple(inputs), run)


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
