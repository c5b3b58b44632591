"""Where a dynamic LSTM or GRU runs: in one operator of ONNX Runtime, or in standard ones; in integers, or why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx

from attar._src.runtime.builder import Builder
from attar._src.runtime.recurrent.lstm import add_lstm
from attar._src.runtime.recurrent.recurrence import Recurrence
from attar._src.runtime.recurrent.scan import add_scan
from attar._src.runtime.weights import Weights


class PlacedRecurrence(NamedTuple):
    """What became of a node.

    Attributes:
        tensors: the stored tensors of its weights.
        reason: why it runs in no integers; empty if it does.
        dequantized: its compressed tensors that were converted to float32.
    """

    tensors: tuple[str, ...]
    reason: str
    dequantized: tuple[str, ...]


def run_recurrent(
    build: Builder, node: onnx.NodeProto, weights: Weights, real: Callable[[str], str], *, private: bool
) -> PlacedRecurrence:
    """Add a dynamic LSTM or GRU, in integers if both its weights allow it.

    Args:
        build: gets its nodes.
        node: of a checked graph: its weights and biases are initializers.
        weights: of the graph.
        real: returns the name of the real numbers of a value.
        private: whether ONNX Runtime's own operators may be used.
    """
    names, bias = node.input[1:3], [*node.input, ""][3]
    rows = [weights.int8_rows(name) for name in names]
    reason = "; ".join(dict.fromkeys(each for each in rows if isinstance(each, str)))
    values = [weights.array(name) if reason else each for name, each in zip(names, rows, strict=True)]
    biases = weights.array(bias) if bias in weights else build.constant(bias)
    made = Recurrence.of(build, node, real, *values, biases)
    of_input, of_state = rows
    if node.op_type == "LSTM" and private and not isinstance(of_input, str) and not isinstance(of_state, str):
        add_lstm(build, made, of_input, of_state)
    else:
        add_scan(build, made)
    tensors = tuple(dict.fromkeys(part for name in names for part in weights.parts(name)))
    compressed = tuple(part for name in names for part in weights.compressed(name)) if reason else ()
    return PlacedRecurrence(tensors, reason, compressed)
