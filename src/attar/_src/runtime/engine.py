"""The one interface to ONNX Runtime, so that all models are timed with the same settings."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, helper

from attar._src.core.errors import ArtifactError, DataError, short_message

# Since version 1.29 ONNX Runtime reports to its maker by default and keeps a device id in the user's cache folder. It
# reads this variable when it is imported, so only this file imports it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

#: The exceptions of ONNX Runtime, which have no common base but Exception.
_FAULTS: tuple[type[Exception], ...] = (
    *(value for value in vars(native).values() if isinstance(value, type) and issubclass(value, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
)
#: Operators that round real numbers to integers, in which there is no NaN.
_ROUND = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
# Suffixes that ONNX Runtime appends to the names of nodes it moves to another kernel or layout.
_RENAMED = re.compile(r"(_token_\d+|_nchwc|_kernel_time)+$")


class Engine:
    """A model loaded by ONNX Runtime, on the CPU.

    Args:
        model: serialized ONNX, or the path of an ONNX file.
        weights: values of the initializers that a serialized model marks as external data; ONNX Runtime reads them
            where they are.
        threads: threads per run; None lets ONNX Runtime choose.
        exact: use exact integer kernels if the fast ones of this machine saturate.
        profile: prefix of the profile's file name; None disables profiling.

    Raises:
        ArtifactError: ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        weights: Mapping[str, NDArray[Any]] = MappingProxyType({}),
        threads: int | None = None,
        exact: bool = False,
        profile: str | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or 0
        # Threads that keep spinning after a run would take cores from the next model.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if exact and saturates():
            options.add_session_config_entry("session.x64quantprecision", "1")
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        self._weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]  # kept: they are shared
        if weights:
            options.add_external_initializers(list(weights), self._weights)
        try:
            source = model if isinstance(model, bytes) else str(model)
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except _FAULTS as error:
            raise ArtifactError(f"ONNX Runtime refuses the graph: {short_message(error)}", section="graph") from error
        #: Names in order.
        self.inputs = tuple(str(value.name) for value in self._session.get_inputs())
        self.outputs = tuple(str(value.name) for value in self._session.get_outputs())

    def run(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs in order; raise :class:`DataError` if ONNX Runtime cannot run these inputs."""
        try:
            found: list[NDArray[Any]] = self._session.run(None, feed)
        except _FAULTS as error:
            raise DataError(f"ONNX Runtime cannot run these inputs: {short_message(error)}") from error
        return found

    def end_profile(self) -> list[dict[str, Any]]:
        """Close the profile and return its events."""
        events: list[dict[str, Any]] = json.loads(Path(self._session.end_profiling()).read_text())
        return events


def rounded_values(graph: GraphProto) -> frozenset[str]:
    """Return the values of a graph of which a NaN becomes an integer further on.

    Not those that ``IsNaN`` asks: what has an answer to NaN may leave it out.
    """
    found, asked = set[str](), set[str]()
    for node in reversed(graph.node):
        inside = [inner for each in node.attribute if each.HasField("g") for inner in each.g.node]
        kinds = {node.op_type, *(inner.op_type for inner in inside)}
        if kinds & _ROUND or not found.isdisjoint(node.output):
            # A body reads values from outside by their names.
            found.update(node.input, (value for inner in inside for value in inner.input))
        if "IsNaN" in kinds or not asked.isdisjoint(node.output):
            asked.update(node.input)
    return frozenset(found - asked)


@cache
def saturates() -> bool:
    """Return whether uint8 x int8 kernels of this machine saturate sums of two products at 16 bits, by trying one.

    They do on x86 without VNNI. Of a model that may saturate, layers of weights up to 64 (2 * 255 * 64 < 2^15) keep the
    fast kernels there; the exact kernels of the others take twice the time.
    """
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "probe",
        [info("a", TensorProto.UINT8, [1, 64]), info("b", TensorProto.INT8, [64, 16])],
        [info("y", TensorProto.INT32, [1, 16])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    feed = {"a": np.full((1, 64), 255, np.uint8), "b": np.full((64, 16), 127, np.int8)}
    return bool((Engine(model.SerializeToString(), threads=1).run(feed)[0] != 64 * 255 * 127).any())


def kernels(
    model: bytes, feed: dict[str, NDArray[Any]], weights: Mapping[str, NDArray[Any]] = MappingProxyType({})
) -> dict[str, str]:
    """Return node -> operator that ran, from ONNX Runtime's profile of one run; nodes fused into others are missing."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(model, weights=weights, threads=1, profile=str(Path(folder) / "profile"))
        engine.run(feed)
        events = engine.end_profile()
    return {
        _RENAMED.sub("", event["name"]): event["args"]["op_name"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
