"""A dynamic LSTM as ONNX Runtime's ``DynamicQuantizeLSTM``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from attar._src.runtime.builder import Builder, node_attributes
from attar._src.runtime.recurrent.recurrence import Recurrence
from attar._src.runtime.weights import Int8Rows

#: The domain of ONNX Runtime's own operators.
PRIVATE = "com.microsoft"


def add_lstm(build: Builder, made: Recurrence) -> None:
    """Add the operator under the name of the node, whose weights are int8.

    It rounds the sequence as a whole and the state at each step, over the batch; with several threads it cuts the
    batch, and rounds the state of each part. Weights are ``(directions, in, gates * hidden)``, transposed against LSTM.
    """
    name, (sequence, *finals) = made.node.name, made.outputs
    codes, scales = [], []
    for role, weight in (("input", made.of_input), ("state", made.of_state)):
        assert isinstance(weight, Int8Rows)
        codes.append(build.initializer(f"{name}_{role}_codes", weight.codes.transpose(0, 2, 1)))
        scale = _fewest(weight.scale)
        for part, array in (("scale", scale), ("zero_point", np.zeros(scale.shape, np.int8))):
            scales.append(build.initializer(f"{name}_{role}_{part}", array))
    biases = "" if made.biases is None else build.initializer(f"{name}_biases", made.biases)
    inputs = [made.data, *codes, biases, made.lengths, *made.states, "", *scales]
    # Without its sequence the operator would keep the state of an example that has ended, and round that as well.
    outputs = [sequence or build.fresh(f"{name}_sequence"), *finals]
    attributes = {key: each for key, each in node_attributes(made.node).items() if key in ("direction", "hidden_size")}
    build.add(helper.make_node("DynamicQuantizeLSTM", inputs, outputs, name=name, domain=PRIVATE, **attributes))


def _fewest(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one scale for each direction if rows have no other, which takes less time, else one for each row."""
    return scale[:, 0] if (scale == scale[:, :1]).all() else scale
