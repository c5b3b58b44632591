"""NNCF's ``quantize_with_accuracy_control``, of ONNX and of OpenVINO, with its defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "0")  # it compiles; 60 seconds are few beside other work

import nncf
import numpy as np
import onnx
import openvino
from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters
from peer_networks import Labelled, Network

from attar._src.runtime.engine import Engine

Example = Labelled
#: A model in the form that NNCF validates it, and examples -> the figure, and the value of each.
Validation = Callable[[Any, Iterable[Example]], tuple[float, list[float]]]


def on_onnx(network: Network, floating: Path, path: Path) -> None:
    """Write an ONNX file."""
    model = onnx.load(floating)
    name = model.graph.input[0].name

    def validate(changed: onnx.ModelProto, examples: Iterable[Example]) -> tuple[float, list[float]]:
        engine = Engine(changed.SerializeToString(), threads=1)
        return _judged(network, examples, lambda x: engine.run({name: x})[0])

    onnx.save(_controlled(network, model, lambda x: {name: x}, validate), path)


def on_openvino(network: Network, floating: Path, path: Path) -> None:
    """Write a model of OpenVINO that takes one example at a time, whose kernels are a little faster."""
    model = openvino.Core().read_model(str(floating))
    model.reshape([1, *network.calibration[0].shape[1:]])

    def validate(compiled: Any, examples: Iterable[Example]) -> tuple[float, list[float]]:
        return _judged(network, examples, lambda x: compiled([x])[0])

    openvino.save_model(_controlled(network, model, lambda x: [x], validate), str(path))


def _controlled(network: Network, model: Any, feed: Callable[[Any], Any], validate: Validation) -> Any:
    return nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(_examples(network.calibration), lambda example: feed(example[0])),
        nncf.Dataset(_examples(network.validation), lambda example: feed(example[0])),
        validate,
        max_drop=network.max_drop / network.scale,
        # Layers are ranked in this process alone: which ones stay in floating point is the same.
        advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(num_ranking_workers=1),
    )


def _judged(network: Network, examples: Iterable[Example], run: Callable[[Any], Any]) -> tuple[float, list[float]]:
    values = [float(network.judge(run(x), y)[0]) for x, y in examples]
    return float(np.mean(values)), values


def _examples(labelled: Labelled) -> list[Example]:
    x, y = labelled
    return [(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
