"""A dynamic LSTM or GRU of a graph: what it reads, by name, and its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.runtime.builder import Builder, node_attributes
from attar._src.runtime.weights import Int8Rows

_LENGTHS, _STATES = 4, 5


@dataclass(frozen=True, eq=False)
class Recurrence:
    """A dynamic LSTM or GRU.

    Attributes:
        node: the node of the graph.
        data: the sequence ``(time, batch, in)``, with zeros behind the end of each example.
        live: whether a step is within the length of its example, bool ``(time, batch, 1)``; empty if all are.
        lengths: int32 ``(batch,)``; empty if there are none.
        states: initial ones, ``(directions, batch, hidden)``; empty where they are zeros.
        of_input, of_state: weights ``(directions, gates * hidden, ...)``, gates in ONNX's order; int8 or their values.
        biases: ``(directions, 2 * gates * hidden)``, first those of the input; None if there are none.
    """

    node: onnx.NodeProto
    data: str
    live: str
    lengths: str
    states: tuple[str, ...]
    of_input: Int8Rows | NDArray[Any]
    of_state: Int8Rows | NDArray[Any]
    biases: NDArray[Any] | None

    @classmethod
    def of(cls, build: Builder, node: onnx.NodeProto, real: Callable[[str], str], *weights: Any) -> Recurrence:
        """Return what a node is.

        Args:
            build: gets the nodes that find which steps are within the lengths.
            node: an LSTM or GRU.
            real: returns the name of the real numbers of a value.
            weights: of the input, of the state, and biases.
        """
        inputs = [*node.input, *[""] * (_STATES + 2)]
        states = tuple(real(name) if name else "" for name in inputs[_STATES : _STATES + _states_of(node)])
        data, lengths, live = real(inputs[0]), inputs[_LENGTHS], ""
        if lengths:
            live = _live_steps(build, data, lengths)
            zero = build.scalar(np.zeros((), np.float32), "zero")
            data = build.node("Where", [live, data, zero], build.fresh(f"{data}_within"))
        return cls(node, data, live, lengths, states, *weights)

    @property
    def directions(self) -> int:
        """How many there are, 1 or 2."""
        return 2 if self._direction == "bidirectional" else 1

    @property
    def hidden(self) -> int:
        """Units of a state in one direction."""
        return int(node_attributes(self.node)["hidden_size"])

    @property
    def outputs(self) -> list[str]:
        """The names of the sequence and of the final states; empty where nothing reads them."""
        return [*self.node.output, *[""] * 3][: 1 + _states_of(self.node)]

    def backward(self, direction: int) -> bool:
        """Return whether a direction goes from the last step to the first."""
        return direction == 1 or self._direction == "reverse"

    @property
    def _direction(self) -> str:
        found: bytes = node_attributes(self.node).get("direction", b"forward")
        return found.decode()


def _states_of(node: onnx.NodeProto) -> int:
    return 2 if node.op_type == "LSTM" else 1


def _live_steps(build: Builder, data: str, lengths: str) -> str:
    """Return whether each step of each example is within its length: bool ``(time, batch, 1)``."""

    def node(op: str, inputs: list[str], **attributes: Any) -> str:
        return build.node(op, inputs, build.fresh(f"{data}_{op}"), **attributes)

    def constant(value: Any) -> str:
        return build.scalar(np.array(value, np.int64), "constant")

    time = node("Gather", [node("Shape", [data]), constant(0)])
    steps = node("Range", [constant(0), time, constant(1)])
    ends = node("Cast", [lengths], to=onnx.TensorProto.INT64)
    rows = node("Unsqueeze", [ends, constant([0, 2])])
    return node("Less", [node("Unsqueeze", [steps, constant([1, 2])]), rows])
