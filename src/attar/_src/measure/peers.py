"""The same network as other tools deploy it, to be timed beside a file."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from attar._src.artifact.reader import Artifact
from attar._src.core.errors import ArtifactError, short_message
from attar._src.measure.runner import InputArrays, Runner, open_runner
from attar._src.runtime.lower import lower


class Peer(NamedTuple):
    """A peer, opened, or the reason why there is none."""

    name: str
    runner: Runner | None
    reason: str


@dataclass(frozen=True)
class PeerSource:
    """What peers are made of.

    Attributes:
        artifact: the file.
        folder: a folder for what is made.
        example: inputs of the sizes that are timed, by the file's names.
        calibration: inputs in batches, by the same names, to find the ranges of activations on.
        floating: the same network in float32 as ONNX, such as an export of the trained module; None for the graph of
            the file with its dequantized weights.
    """

    artifact: Artifact
    folder: Path
    example: InputArrays
    calibration: Sequence[InputArrays]
    floating: Path | None = None

    @cached_property
    def float32(self) -> Path:
        """The network in float32, as ONNX."""
        if self.floating is not None:
            return self.floating
        graph = self.artifact.manifest.graphs[0].name
        return self._written("float32.onnx", lower(self.artifact, graph, floating=True).serialized())

    @cached_property
    def exported(self) -> Path:
        """The file as ``attar export --to onnx`` writes it."""
        return self._written("exported.onnx", lower(self.artifact, self.artifact.manifest.graphs[0].name).serialized())

    @cached_property
    def prepared(self) -> Path:
        """``float32`` as ONNX Runtime wants it before it quantizes: optimized, with the shapes of values."""
        path = self.folder / "prepared.onnx"
        prepare = importlib.import_module("onnxruntime.quantization.shape_inference").quant_pre_process
        # The symbolic shapes need sympy; the quantized graphs of CNNs, transformers and LSTMs are the same without.
        prepare(self.float32, path, skip_symbolic_shape=True)
        return path

    def _written(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name


def _float32(source: PeerSource) -> Path:
    return source.float32


def _dynamic(source: PeerSource) -> Path:
    path = source.folder / "dynamic.onnx"
    quantization = importlib.import_module("onnxruntime.quantization")
    quantization.quantize_dynamic(source.prepared, path, per_channel=True)
    return path


def _static(source: PeerSource) -> Path:
    path = source.folder / "static.onnx"
    quantization = importlib.import_module("onnxruntime.quantization")
    names = [value.name for value in _inputs(onnx.load(source.prepared))]
    feeds = iter([dict(zip(names, feed.values(), strict=True)) for feed in source.calibration])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> InputArrays | None:
            return next(feeds, None)

    quantization.quantize_static(
        source.prepared,
        path,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,  # the fast kernels of x86 are uint8 by int8
    )
    return path


def _openvino(source: PeerSource) -> Path:
    path = source.folder / "openvino.xml"
    openvino: Any = importlib.import_module("openvino")
    model = openvino.Core().read_model(str(source.exported))
    # Its kernels for fixed shapes take up to a fifth less.
    model.reshape({i: list(array.shape) for i, array in enumerate(source.example.values())})
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return path


FLOAT32, STATIC = "ONNX Runtime float32", "ONNX Runtime static int8"
#: Peer -> what makes its file of a source. ONNX Runtime's tools with what its documentation advises for x86 with VNNI.
PEERS: dict[str, Callable[[PeerSource], Path]] = {
    FLOAT32: _float32,
    "ONNX Runtime dynamic int8": _dynamic,
    STATIC: _static,
    "OpenVINO of the export": _openvino,
}


def build_peers(source: PeerSource, *, threads: int | None = None) -> list[Peer]:
    """Return every peer of :data:`PEERS`, opened and tried once, or why it could not be made."""
    return [_built(name, make, source, threads) for name, make in PEERS.items()]


def quantizes_nothing(path: Path) -> bool:
    """Return whether an ONNX file holds no quantized operator, so that peers can be made of it.

    Raises:
        ArtifactError: it is no ONNX file.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ArtifactError(f"{path} is no ONNX file: {short_message(error)}") from error
    return not any("Quantize" in node.op_type or "Integer" in node.op_type for node in model.graph.node)


def random_feeds(feed: InputArrays, count: int = 4) -> list[InputArrays]:
    """Return ``feed`` and further inputs of its sizes: fair for a time, not for an accuracy."""
    rng = np.random.default_rng(1)
    more = [
        {
            name: rng.standard_normal(array.shape).astype(array.dtype) if array.dtype.kind == "f" else array
            for name, array in feed.items()
        }
        for _ in range(count - 1)
    ]
    return [feed, *more]


def _built(name: str, make: Callable[[PeerSource], Path], source: PeerSource, threads: int | None) -> Peer:
    try:
        with _quiet():
            runner = open_runner(make(source), threads=threads)
            runner.run(runner.feed(source.example))
    except ModuleNotFoundError as error:
        return Peer(name, None, f"{error.name} is not installed: pip install {error.name}")
    except Exception as error:  # noqa: BLE001 -- the tools of others raise anything on a graph they do not know
        return Peer(name, None, short_message(error))
    return Peer(name, runner, "")


def _inputs(model: onnx.ModelProto) -> list[Any]:
    """Return the inputs of a model that are no initializers."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's quantizer from writing advice on standard error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
