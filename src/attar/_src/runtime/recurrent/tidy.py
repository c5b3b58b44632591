"""Recurrent layers without the nodes that only exporters need: a small LSTM spends a tenth of its time in them.

| in the file | lowered |
|---|---|
| initial states of zeros, cut from an ``Expand`` of 0 | none, which means zeros |
| ``Transpose`` and ``Reshape`` of a sequence of one direction, its shape computed | ``Squeeze`` |
| of two directions | ``Transpose`` and ``Reshape`` to a constant shape |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from attar._src.runtime.builder import Builder, node_attributes
from attar._src.runtime.grid import Constant

_RECURRENT = ("LSTM", "GRU", "RNN")
_STATES = slice(5, 7)
_MOVED = ("Slice", "Squeeze", "Unsqueeze", "Identity", "Reshape", "Transpose", "Expand")


def tidy(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], build: Builder) -> list[onnx.NodeProto]:
    """Return the nodes of a graph with these ``outputs``, changed in place, without those that nothing reads any more.

    ``build`` gets new initializers and names.
    """
    made = {name: node for node in nodes for name in node.output}
    found = [node for node in nodes if node.op_type in _RECURRENT]
    for node in found:
        for place in range(*_STATES.indices(len(node.input))):
            if node.input[place] and _zeros(node.input[place], made, build.constant):
                node.input[place] = ""
        for turn, reshape in _sequences(node, nodes):
            if _keeps_two(reshape, made, build.constant):
                _shorten(node, turn, reshape, build)
    return _read(nodes, outputs) if found else list(nodes)


def _zeros(name: str, made: Mapping[str, onnx.NodeProto], constant: Constant) -> bool:
    """Return whether a value has only zeros, moved from a constant."""
    while name in made and made[name].op_type in _MOVED:
        name = made[name].input[0]
    value = constant(name)
    return value is not None and bool((value == 0).all())


def _sequences(
    node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]
) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Yield the Transpose that puts directions beside units, and each Reshape behind it that joins them."""
    turns = [each for each in nodes if each.op_type == "Transpose" and each.input[0] == node.output[0]]
    for turn in turns:
        joined = [each for each in nodes if each.op_type == "Reshape" and each.input[0] == turn.output[0]]
        beside = node_attributes(turn).get("perm") == [0, 2, 1, 3]
        yield from ((turn, each) for each in joined if beside)


def _keeps_two(reshape: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], constant: Constant) -> bool:
    """Return whether a Reshape to three axes keeps the first two of the four of its input."""
    shape = made.get(reshape.input[1])
    if shape is None:
        sizes = constant(reshape.input[1])
        return sizes is not None and sizes.size == 3 and not sizes[:2].any() and _plain(reshape)
    if shape.op_type != "Concat" or len(shape.input) != 3:
        return False
    for axis, part in enumerate(shape.input[:2]):
        cut = made.get(part)
        of = made.get(cut.input[0]) if cut is not None and cut.op_type == "Slice" else None
        if cut is None or of is None or of.op_type != "Shape" or of.input[0] != reshape.input[0] or not _plain(of):
            return False
        known = [[] if (value := constant(name)) is None else value.tolist() for name in cut.input[1:]]
        if known not in ([[axis], [axis + 1]], [[axis], [axis + 1], [0]]):
            return False
    return True


def _plain(node: onnx.NodeProto) -> bool:
    """Return whether a node has no attributes but ``start`` or ``allowzero`` of 0, their defaults."""
    return all(name in ("start", "allowzero") and value == 0 for name, value in node_attributes(node).items())


def _shorten(node: onnx.NodeProto, turn: onnx.NodeProto, reshape: onnx.NodeProto, build: Builder) -> None:
    if node_attributes(node).get("direction") != b"bidirectional":
        axes = build.scalar(np.array([1]), "axes")
        reshape.CopyFrom(helper.make_node("Squeeze", [node.output[0], axes], reshape.output, name=reshape.name))
    else:
        width = 2 * int(node_attributes(node)["hidden_size"])
        sizes = build.scalar(np.array([0, 0, width]), "sizes")
        reshape.CopyFrom(helper.make_node("Reshape", [turn.output[0], sizes], reshape.output, name=reshape.name))


def _read(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the nodes that the outputs depend on, in order."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            kept.append(node)
    return kept[::-1]
