"""The body of a Scan, and one step of a GRU and of an LSTM in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from attar._src.runtime.builder import Builder


class Body(Builder):
    """Nodes of one step. Its initializers are its own: ONNX Runtime hands those of the graph around it to each step."""

    def __init__(self, outer: Builder) -> None:
        super().__init__(onnx.ModelProto())
        self._outer = outer

    def fresh(self, name: str) -> str:
        """Return a name that is unused in the graph around it as well."""
        return self._outer.fresh(name)

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Add an initializer with exactly this name, in the message."""
        self._made[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output and return the output's name."""
        return self.node(op, inputs, self.fresh(f"{op}_step"), **attributes)

    def split(self, value: str, widths: Sequence[int]) -> list[str]:
        """Cut ``(batch, width)`` along its last axis and return the parts."""
        return cut(self, value, widths, axis=1)

    def graph(self, inputs: Sequence[str], outputs: Sequence[str], booleans: Sequence[str] = ()) -> onnx.GraphProto:
        """Return the nodes as a graph; inputs are float32 or ``booleans``."""

        def infos(names: Sequence[str]) -> list[onnx.ValueInfoProto]:
            kinds = [TensorProto.BOOL if name in booleans else TensorProto.FLOAT for name in names]
            return [helper.make_tensor_value_info(*each, [None, None]) for each in zip(names, kinds, strict=True)]

        initializers = list(self._made.values())
        return helper.make_graph(self._nodes, self.fresh("step"), infos(inputs), infos(outputs), initializers)


def cut(build: Builder, value: str, widths: Sequence[int], *, axis: int) -> list[str]:
    """Cut a value along an axis and return the names of the parts."""
    parts = [build.fresh(f"{value}_part") for _ in widths]
    sizes = build.scalar(np.array(widths, np.int64), "sizes")
    build.add(helper.make_node("Split", [value, sizes], parts, name=build.fresh(f"{value}_split"), axis=axis))
    return parts


@dataclass(frozen=True)
class Cell:
    """How a step makes its states of earlier ones, of what it reads, and of the product of the first state.

    ``parts``: of how many gates each value is that a step reads; the product is of all of them, in this order.
    """

    step: Callable[[Body, Sequence[str], Sequence[str], Sequence[str], int], list[str]]
    parts: tuple[int, ...]


def _gru(body: Body, states: Sequence[str], read: Sequence[str], product: Sequence[str], hidden: int) -> list[str]:
    """``n = tanh(xn + r hn)``, ``h = n + z (h - n)``."""
    z, r = body.split(body.op("Sigmoid", body.op("Add", read[0], product[0])), [hidden] * 2)
    new = body.op("Tanh", body.op("Add", read[1], body.op("Mul", r, product[1])))
    return [body.op("Add", new, body.op("Mul", z, body.op("Sub", states[0], new)))]


def _lstm(body: Body, states: Sequence[str], read: Sequence[str], product: Sequence[str], hidden: int) -> list[str]:
    """``c = f c + i tanh(...)``, ``h = o tanh(c)``."""
    i, o, f = body.split(body.op("Sigmoid", body.op("Add", read[0], product[0])), [hidden] * 3)
    new = body.op("Tanh", body.op("Add", read[1], product[1]))
    c = body.op("Add", body.op("Mul", f, states[1]), body.op("Mul", i, new))
    return [body.op("Mul", o, body.op("Tanh", c)), c]


#: ONNX type -> its cell, with gates in ONNX's order.
CELLS = {"GRU": Cell(_gru, (2, 1)), "LSTM": Cell(_lstm, (3, 1))}
