"""Where a dynamic LSTM or GRU runs: in one operator of ONNX Runtime, or in standard ones; in integers, or why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx

from attar._src.runtime.accumulator import may_saturate
from attar._src.runtime.builder import Builder
from attar._src.runtime.dynamic_product import ANY_CODES
from attar._src.runtime.recurrent.lstm import add_lstm
from attar._src.runtime.recurrent.recurrence import Recurrence
from attar._src.runtime.recurrent.scan import add_scan
from attar._src.runtime.weights import Int8Rows, Weights


class PlacedRecurrence(NamedTuple):
    """What became of a node.

    Attributes:
        tensors: the stored tensors of its weights.
        reason: why it runs in no integers; empty if it does.
        saturates: whether kernels that add two products in 16 bits may saturate.
        dequantized: its compressed tensors that were converted to float32.
    """

    tensors: tuple[str, ...]
    reason: str
    saturates: bool
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
    if node.op_type == "LSTM" and private and not reason:
        add_lstm(build, made)
    else:
        add_scan(build, made)
    tensors = tuple(dict.fromkeys(part for name in names for part in weights.parts(name)))
    compressed = tuple(part for name in names for part in weights.compressed(name)) if reason else ()
    return PlacedRecurrence(tensors, reason, any(_may_saturate(each) for each in values), compressed)


def _may_saturate(rows: object) -> bool:
    """Return whether products of any codes and these rows may saturate; those of real numbers do not."""
    return isinstance(rows, Int8Rows) and any(
        may_saturate(rows.direction(place), ANY_CODES, 0) for place in range(len(rows.codes))
    )
