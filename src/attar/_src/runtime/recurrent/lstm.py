"""A dynamic LSTM as ONNX Runtime's ``DynamicQuantizeLSTM``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from attar._src.runtime.accumulator import may_saturate
from attar._src.runtime.builder import Builder, node_attributes
from attar._src.runtime.dynamic_product import ANY_CODES
from attar._src.runtime.recurrent.recurrence import Recurrence
from attar._src.runtime.weights import Int8Rows

#: The domain of ONNX Runtime's own operators.
PRIVATE = "com.microsoft"


def add_lstm(build: Builder, made: Recurrence, of_input: Int8Rows, of_state: Int8Rows) -> None:
    """Add the operator under the name of the node.

    It rounds the sequence as a whole and the state at each step, over the batch; with several threads it cuts the
    batch, and rounds the state of each part. Weights are ``(directions, in, gates * hidden)``, transposed against LSTM:
    int8, or uint8 shifted by 128 if int8 may saturate on some processors.
    """
    name, (sequence, *finals) = made.node.name, made.outputs
    shift = 128 if any(_may_saturate(rows) for rows in (of_input, of_state)) else 0
    codes, scales = [], []
    for role, rows in (("input", of_input), ("state", of_state)):
        made_codes = (rows.codes.transpose(0, 2, 1).astype(np.int16) + shift).astype(np.uint8 if shift else np.int8)
        scale = _fewest(rows.scale)
        zero_point = np.full(scale.shape, shift, made_codes.dtype)
        parts: dict[str, NDArray[Any]] = {"codes": made_codes, "scale": scale, "zero_point": zero_point}
        first, *others = (build.initializer(f"{name}_{role}_{part}", array) for part, array in parts.items())
        codes.append(first)
        scales += others
    biases = "" if made.biases is None else build.initializer(f"{name}_biases", made.biases)
    inputs = [made.data, *codes, biases, made.lengths, *made.states, "", *scales]
    # Without its sequence the operator would keep the state of an example that has ended, and round that as well.
    outputs = [sequence or build.fresh(f"{name}_sequence"), *finals]
    attributes = {key: each for key, each in node_attributes(made.node).items() if key in ("direction", "hidden_size")}
    build.add(helper.make_node("DynamicQuantizeLSTM", inputs, outputs, name=name, domain=PRIVATE, **attributes))


def _may_saturate(rows: Int8Rows) -> bool:
    return any(may_saturate(rows.direction(place), ANY_CODES, 0) for place in range(len(rows.codes)))


def _fewest(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one scale for each direction if rows have no other, which takes less time, else one for each row."""
    return scale[:, 0] if (scale == scale[:, :1]).all() else scale
