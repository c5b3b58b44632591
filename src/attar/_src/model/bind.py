"""Take the weights out of an exported ONNX graph and find how each initializer is made of the module's state.

The exporter rearranges weights: it transposes those of linear layers; it cuts, reorders and joins the gates of an LSTM.
So that no such case has to be known here, every element of the state gets a bit pattern of its own, a *mark*. Operators
that only move data are folded, and the marks that come out tell where each element came from.
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
from attar._src.model.export.refusals import refuse_operators

#: Bit patterns of the smallest and the largest normal float32; all between are finite positive numbers.
_FIRST, _LAST = 0x0080_0000, 0x7F7F_FFFF
#: An initializer up to this many bytes stays in the graph (``docs/format.md``, section 5).
_INLINE_BYTES = 64
#: A constant of more elements than this is computed when the file is opened, if it can be made of far fewer.
_COMPUTED = 1 << 12
#: Operators whose output is some elements of their inputs, each once, in runs, as a binding can express.
_MOVES = onnx_types(lambda operator: operator.binds)
_JOINS = onnx_types(lambda operator: operator.joins)


def bind(
    exported: onnx_ir.Model, state: Mapping[str, torch.Tensor]
) -> tuple[onnx.ModelProto, tuple[Binding, ...], dict[str, NDArray[Any]]]:
    """Split an exported model into graph, bindings and constants.

    Args:
        exported: the exporter's model, with the state as initializers; it is changed.
        state: parameters and buffers by name.

    Returns:
        The ONNX model without initializers over 64 bytes, the binding of each one taken out, and by name those that are
        no part of the state (tables computed while tracing).

    Raises:
        ModelError: an initializer mixes elements of the state in a way that no binding can express.
    """
    starts = _mark(exported, state)
    marked = _fold_moves(exported, set(starts))
    bindings: list[Binding] = []
    constants: dict[str, NDArray[Any]] = {}
    for name, value in list(exported.graph.initializers.items()):
        assert value.const_value is not None
        array = value.const_value.numpy()
        if name in marked and array.size:
            bindings.append(_describe(name, np.asarray(array, order="C").view(np.uint32), starts, state))
        elif array.nbytes > _INLINE_BYTES:
            constants[name] = np.array(array)
            bindings.append(Binding(to=name))
        else:
            continue
        # Not serialized with the graph: it may be a gigabyte.
        exported.graph.initializers.pop(name)
    model = onnx_ir.serde.serialize_model(exported)
    del model.graph.value_info[:]
    return model, tuple(bindings), constants


def _mark(exported: onnx_ir.Model, state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Replace the float32 state in the initializers by marks; return the first mark of each tensor."""
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
    """Fold constants, but of what reads marked tensors only the moves; return the names of all marked tensors."""

    def should_fold(node: onnx_ir.Node) -> bool | None:
        data = node.inputs if node.op_type in _JOINS else node.inputs[:1]
        if not any(value is not None and value.name in marked for value in node.inputs):
            return False if _unfolds(node) else None
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
    refuse_operators(exported.graph)
    passes.ClearMetadataAndDocStringPass()(exported)
    return marked


def _unfolds(node: onnx_ir.Node) -> bool:
    """Whether a constant is large and made of a small one (a mask, a matrix of cosines): the file has the small one."""
    shape = node.outputs[0].shape
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    if shape is None or len(sizes) < len(shape):
        return False
    read = sum(0 if value is None or value.const_value is None else value.const_value.size for value in node.inputs)
    size = math.prod(sizes)
    return size > _COMPUTED and size > 16 * read


def _describe(
    name: str, marks: NDArray[np.uint32], starts: Mapping[str, int], state: Mapping[str, torch.Tensor]
) -> Binding:
    """Return the binding that makes these marks: a whole tensor, permuted and reshaped, or parts of several."""
    names = sorted(starts, key=starts.__getitem__)
    flat = marks.reshape(-1)
    firsts = [starts[each] for each in names]
    source, last = (names[place - 1] for place in np.searchsorted(firsts, [flat.min(), flat.max()], side="right"))
    shape = tuple(state[source].shape)
    if source == last and flat.size == math.prod(shape):
        order = _permutation(flat - starts[source], shape)
        if order is not None:
            moved = tuple(shape[axis] for axis in order)
            return Binding(
                to=name,
                parts=() if source == name else (Part(tensor=source),),
                permute=None if order == tuple(range(len(shape))) else order,
                shape=None if moved == marks.shape else marks.shape,
            )
    owner = np.searchsorted(firsts, flat, side="right") - 1
    # A run of marks may cross into the next tensor: cut there too.
    cuts = np.flatnonzero((np.diff(flat) != 1) | (np.diff(owner) != 0)) + 1
    edges = [0, *cuts.tolist(), flat.size]
    if len(edges) > 4096:
        raise ModelError(f"initializer {name} is {len(edges) - 1} pieces of the state; no binding can say that shortly")
    parts = []
    for begin, end in itertools.pairwise(edges):
        source = names[int(owner[begin])]
        start = int(flat[begin]) - starts[source]
        parts.append(Part(tensor=source, start=start, stop=start + end - begin))
    return Binding(to=name, parts=tuple(parts), shape=marks.shape)


def _permutation(index: NDArray[np.uint32], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the permutation of axes under which ``arange(n).reshape(shape)`` flattens to ``index``, if any."""
    straight = np.arange(index.size, dtype=index.dtype)
    if np.array_equal(index, straight):
        return tuple(range(len(shape)))
    # Axes of length one can stand anywhere: they come first, in order.
    ones = [axis for axis in range(len(shape)) if shape[axis] == 1]
    rest = [axis for axis in range(len(shape)) if shape[axis] > 1]
    order: list[int] = []
    block = index
    # The step between neighbours is the stride of the fastest axis; the next block has the first element of each run.
    while rest:
        step = int(block[1] - block[0])
        axis = next((each for each in rest if math.prod(shape[each + 1 :]) == step), None)
        if axis is None or block.size % shape[axis]:
            return None
        order.insert(0, axis)
        rest.remove(axis)
        block = block.reshape(-1, shape[axis])[:, 0]
    order = ones + order
    return tuple(order) if np.array_equal(straight.reshape(shape).transpose(order).reshape(-1), index) else None
