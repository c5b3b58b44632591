"""Take the weights out of an exported ONNX graph and say how each initializer is made of the module's state.

The exporter moves weights about (a transposed linear layer, the gates of an LSTM reordered, cut and joined). Instead of
knowing each of its habits, every element of the state gets a bit pattern of its own, the operators that only move data
are folded, and the patterns that come out tell where each element came from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from attar._src.artifact.manifest import Binding, Part
from attar._src.core.errors import ModelError
from attar._src.core.operators import onnx_types

#: Smallest bit pattern of a normal float32; from here on every pattern is a finite positive number.
_FIRST = 0x0080_0000
_LAST = 0x7F7F_FFFF
#: An initializer up to this many bytes stays in the graph (``docs/format.md``, section 5).
_INLINE_BYTES = 64
#: Operators whose output is some elements of their inputs, each once, in runs: what a binding can say.
_MOVES = onnx_types(lambda operator: operator.binds)
_JOINS = onnx_types(lambda operator: operator.joins)


def bind(
    exported: onnx_ir.Model, state: Mapping[str, torch.Tensor]
) -> tuple[onnx.ModelProto, tuple[Binding, ...], dict[str, NDArray[Any]]]:
    """Split an exported model into graph, bindings and constants.

    Args:
        exported: the model as the exporter made it, with the state as initializers; it is changed.
        state: parameters and buffers by name.

    Returns:
        The ONNX model without initializers over 64 bytes, the binding of each one taken out, and the tensors among them
        that are no part of the state (tables computed while tracing), by name.

    Raises:
        ModelError: an initializer mixes elements of the state in a way no binding can say.
    """
    starts = _mark(exported, state)
    marked = _fold_moves(exported, set(starts))
    model = onnx_ir.serde.serialize_model(exported)
    bindings: list[Binding] = []
    constants: dict[str, NDArray[Any]] = {}
    kept: list[onnx.TensorProto] = []
    for initializer in model.graph.initializer:
        array = onnx.numpy_helper.to_array(initializer)
        if initializer.name in marked and array.size:
            marks = np.ascontiguousarray(array).view(np.uint32).astype(np.int64)
            bindings.append(_describe(initializer.name, marks, starts, state))
        elif array.nbytes > _INLINE_BYTES:
            constants[initializer.name] = array
            bindings.append(Binding(to=initializer.name))
        else:
            kept.append(initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    return model, tuple(bindings), constants


def _mark(exported: onnx_ir.Model, state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Replace the floating state in the initializers by bit patterns of its own; return where each tensor's begin."""
    starts: dict[str, int] = {}
    position = _FIRST
    for name, value in exported.graph.initializers.items():
        if name in state and state[name].dtype == torch.float32:
            size = state[name].numel()
            if position + size > _LAST:
                raise ModelError(f"more than {_LAST - _FIRST:,} parameters in one graph; split the module")
            marks = np.arange(position, position + size, dtype=np.uint32).view(np.float32).reshape(state[name].shape)
            value.const_value = onnx_ir.tensor(marks, name=name)
            starts[name] = position
            position += size
    return starts


def _fold_moves(exported: onnx_ir.Model, marked: set[str]) -> set[str]:
    """Fold constants, but let nothing compute on a marked tensor: only moves of marked tensors are folded.

    Returns:
        the names of everything that is made of marked tensors, by moves alone.
    """

    def should_fold(node: onnx_ir.Node) -> bool | None:
        data = node.inputs if node.op_type in _JOINS else node.inputs[:1]
        if not any(value is not None and value.name in marked for value in node.inputs):
            return None
        moves = node.op_type in _MOVES and not node.domain
        if not moves or not all(value is not None and value.name in marked for value in data):
            return False
        marked.update(value.name for value in node.outputs if value.name)
        return True

    passes.InlinePass()(exported)
    for _ in range(8):
        before = len(exported.graph)
        onnxscript.optimizer.fold_constants_ir(
            exported,
            onnx_shape_inference=True,
            input_size_limit=1 << 40,
            output_size_limit=1 << 40,
            should_fold=should_fold,
        )
        onnxscript.optimizer.remove_unused_nodes(exported)
        if len(exported.graph) == before:
            break
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(exported)
    passes.RemoveUnusedNodesPass()(exported)
    passes.RemoveUnusedOpsetsPass()(exported)
    passes.ClearMetadataAndDocStringPass()(exported)
    return marked


def _describe(
    name: str, marks: NDArray[np.int64], starts: Mapping[str, int], state: Mapping[str, torch.Tensor]
) -> Binding:
    """Find the binding that makes these marks."""
    names = sorted(starts, key=starts.__getitem__)
    begins = np.array([starts[n] for n in names])
    flat = marks.reshape(-1)
    cuts = np.flatnonzero(np.diff(flat) != 1) + 1
    owner = np.searchsorted(begins, flat, side="right") - 1
    if (owner == owner[0]).all():
        source = names[int(owner[0])]
        shape = tuple(state[source].shape)
        if flat.size == math.prod(shape):
            order = _permutation(flat - starts[source], shape)
            if order is not None:
                straight = order == tuple(range(len(shape)))
                moved = tuple(shape[axis] for axis in order)
                return Binding(
                    to=name,
                    parts=() if source == name else (Part(tensor=source),),
                    permute=None if straight else order,
                    shape=None if moved == marks.shape else marks.shape,
                )
    # A run may cross from one tensor into the next when both lie side by side: cut there too.
    cuts = np.union1d(cuts, np.flatnonzero(np.diff(owner)) + 1)
    edges = [0, *cuts.tolist(), flat.size]
    if len(edges) > 4096:
        raise ModelError(f"initializer {name} is {len(edges) - 1} pieces of the state; no binding can say that shortly")
    parts = []
    for begin, end in itertools.pairwise(edges):
        source = names[int(owner[begin])]
        start = int(flat[begin]) - starts[source]
        parts.append(Part(tensor=source, start=start, stop=start + end - begin))
    return Binding(to=name, parts=tuple(parts), shape=marks.shape)


def _permutation(index: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the permutation of axes under which ``arange(n).reshape(shape)`` flattens to ``index``, if any."""
    if not shape:
        return ()
    # Axes of length one can stand anywhere; they are kept in place at the front, in order.
    strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
    long = [axis for axis in range(len(shape)) if shape[axis] > 1]
    order: list[int] = []
    rest, block = list(long), index
    # Read off the fastest axis again and again: the step between neighbours is its stride.
    while rest:
        step = int(block[1] - block[0])
        axis = next((a for a in rest if strides[a] == step), None)
        if axis is None or block.size % shape[axis]:
            return None
        order.insert(0, axis)
        rest.remove(axis)
        block = block.reshape(-1, shape[axis])[:, 0]
    order = [axis for axis in range(len(shape)) if shape[axis] == 1] + order
    expected = np.arange(math.prod(shape)).reshape(shape).transpose(order).reshape(-1)
    if not np.array_equal(expected, index):
        return None
    # Prefer the identity wherever length-one axes allow it.
    straight = np.array_equal(index, np.arange(index.size))
    return tuple(range(len(shape))) if straight else tuple(order)
