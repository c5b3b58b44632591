"""Plan the uint8 grids of a lowered graph and the position of each QuantizeLinear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.artifact.manifest import Activation
from attar._src.core.operators import onnx_types
from attar._src.runtime.builder import node_attributes

Constant = Callable[[str], NDArray[Any] | None]

_ORDERLY = onnx_types(lambda operator: operator.keeps_order)
_CLIPS = onnx_types(lambda operator: operator.kind == "clip")
# Operators whose result on codes is the codes of their result: data only moves.
_MOVES = onnx_types(lambda operator: operator.kind == "move" and operator.on_codes)
_JOINS = onnx_types(lambda operator: operator.joins)
#: Operators that a rounding behind them may be moved in front of.
_PASSED = _ORDERLY | _MOVES
_SUMS = onnx_types(lambda operator: operator.sums)
#: Moves that fill in a value: on codes, the code of zero.
FILLS = onnx_types(lambda operator: operator.fills and operator.on_codes)


@dataclass(frozen=True)
class Grid:
    """uint8 codes ``low`` to ``high`` with the values ``scale * (code - zero_point)``, ``scale`` a float32."""

    scale: float
    zero_point: int
    low: int
    high: int

    @classmethod
    def of(cls, activation: Activation) -> Grid:
        """Return the grid of a record; signed codes and zero point are shifted by 128, which keeps the values."""
        shift = 128 if activation.signed else 0
        scale = float(np.float32(activation.scale))
        return cls(scale, activation.zero_point + shift, activation.qmin + shift, activation.qmax + shift)

    def code(self, value: float) -> int:
        """Return the code of a value after QuantizeLinear and Clip."""
        with np.errstate(over="ignore"):
            code = np.rint(np.float32(value) / np.float32(self.scale)) + np.float32(self.zero_point)
        return int(np.clip(code, self.low, self.high))

    def between(self, low: float, high: float) -> Grid:
        """Return the grid whose codes are those of ``clip(x, low, high)`` for every x."""
        return replace(self, low=self.code(low), high=self.code(high))

    def holds(self, other: Grid) -> bool:
        """Return whether every code of ``other`` is a code of this grid with the same value."""
        same = (self.scale, self.zero_point) == (other.scale, other.zero_point)
        return same and self.low <= other.low and other.high <= self.high


class CodedValue(NamedTuple):
    """A quantized value: the name of its uint8 codes in the lowered graph, and their grid."""

    name: str
    grid: Grid


def plan_grids(
    graph: onnx.GraphProto, activations: Mapping[str, Grid], constant: Constant
) -> tuple[dict[str, Grid], set[str]]:
    """Plan where each activation is rounded to its grid.

    Rounding moves up through monotone operators as long as nothing else reads the values in between.

    Returns:
        value -> its grid, for activations and the values their rounding was moved up to; and the outputs of Relu and
        Clip nodes that became bounds on the codes of their input.
    """
    producer = {value: node for node in graph.node for value in node.output}
    readers = Counter(value for node in graph.node for value in node.input)
    outputs = {value.name for value in graph.output}
    grids = dict(activations)
    absorbed: set[str] = set()
    for value, grid in activations.items():
        source = value
        while source not in outputs and (node := producer.get(source)) is not None:
            above = node.input[0] if node.op_type in _ORDERLY and len(node.output) == 1 else None
            bounds = _bounds(node, constant)
            if above is None or bounds is None or above not in producer:
                break
            if above in grids or above in outputs or readers[above] > 1:
                break
            grid = grid.between(*bounds)
            if node.op_type in _CLIPS:
                absorbed.add(source)
            source = above
        if source != value:
            grids[source] = grid
    return grids, absorbed


def grid_of_move(node: onnx.NodeProto, codes: Mapping[str, CodedValue], constant: Constant) -> Grid | None:
    """Return the grid of a node's output if the node can work on the codes of its inputs, else None."""
    if node.op_type not in _MOVES or (node.op_type == "MaxPool" and len(node.output) > 1):
        return None
    inputs = data_inputs(node)
    grids = [codes[name].grid for name in inputs if name in codes]
    if len(grids) < len(inputs) or len({(grid.scale, grid.zero_point) for grid in grids}) > 1:
        return None
    if node.op_type in FILLS and not _pads_zero(node, constant):
        return None
    return replace(grids[0], low=min(grid.low for grid in grids), high=max(grid.high for grid in grids))


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """Return the data inputs of an operator that moves data."""
    return list(node.input) if node.op_type in _JOINS else [node.input[0]]


def _bounds(node: onnx.NodeProto, constant: Constant) -> tuple[float, float] | None:
    """Return the range a monotone node clips to, None if it is unknown."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type not in _CLIPS:
        return -np.inf, np.inf
    ends = [-np.inf, np.inf]
    for i, name in enumerate(node.input[1:3]):
        if name:
            end = constant(name)
            if end is None or end.size != 1 or not np.isfinite(end).all():
                return None
            ends[i] = float(end.reshape(-1)[0])
    # ONNX: if min > max, every value becomes max.
    return min(ends), ends[1]


def _pads_zero(node: onnx.NodeProto, constant: Constant) -> bool:
    if node_attributes(node).get("mode", b"constant") != b"constant" or len(node.input) < 3 or not node.input[2]:
        return True
    value = constant(node.input[2])
    return value is not None and value.size == 1 and not value.any()


def summed_values(graph: onnx.GraphProto, grids: Mapping[str, Grid]) -> set[str]:
    """Return the inputs of sums whose result is quantized, directly or after monotone or moving operators."""
    soon = set(grids)
    for node in reversed(graph.node):
        if node.op_type in _PASSED and not soon.isdisjoint(node.output):
            soon.add(node.input[0])
    sums = [node for node in graph.node if node.op_type in _SUMS and node.output[0] in soon]
    return {name for node in sums for name in node.input if name not in grids}


def divides_by_cells_outside(node: onnx.NodeProto) -> bool:
    """Return whether ONNX Runtime's integer kernel divides an average by cells that lie outside the padded input.

    With ``ceil_mode`` the last window may reach beyond the padding: of 5 elements the third window of two has one.
    ``QLinearAveragePool`` divides it by two if ``count_include_pad`` is set, as the float kernel did before
    microsoft/onnxruntime#29629.
    """
    attributes = node_attributes(node)
    return node.op_type == "AveragePool" and all(attributes.get(each, 0) for each in ("ceil_mode", "count_include_pad"))
