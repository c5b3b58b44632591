"""Equivalent rewrites of a graph before lowering that let ONNX Runtime run more of it in integers."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, shape_inference

from attar._src.core.scheme import Shape
from attar._src.runtime.builder import Builder, node_attributes
from attar._src.runtime.grid import Constant, Grid
from attar._src.runtime.recurrent.tidy import tidy


def rewrite(model: onnx.ModelProto, weights: Mapping[str, Shape], grids: Mapping[str, Grid]) -> onnx.ModelProto:
    """Return a rewritten copy of a model in which every node has a unique name.

    - ReduceMean over all axes but the first two, which has no integer kernel, becomes GlobalAveragePool, followed by
      Flatten if keepdims is 0.
    - Two consecutive Slices of different axes become one, if nothing else reads the first or rounds between them: each
      strided Slice costs a pass over its input.
    - Recurrent layers lose the nodes around them that only an exporter needs (``recurrent/tidy.py``).

    ``weights`` are the shapes of initializers that are not in the model.
    """
    build = Builder(model, reserved=weights)
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(value.name for value in model.graph.output)
    ranks = _ranks(model, weights) if any(node.op_type == "ReduceMean" for node in model.graph.node) else {}
    nodes: dict[str, onnx.NodeProto] = {}
    producer: dict[str, onnx.NodeProto] = {}
    for node in copy.deepcopy(model.graph.node):
        if not node.name or node.name in nodes:
            node.name = build.fresh(f"node_{node.output[0]}")
        replacement = [node]
        if node.op_type == "ReduceMean" and _over_space(node, ranks.get(node.input[0]), build.constant):
            replacement = _pool(node, build.fresh)
        elif node.op_type == "Slice" and (first := producer.get(node.input[0])) is not None:
            between = grids.get(node.input[0])
            free = readers[node.input[0]] == 1 and between in (None, grids.get(first.input[0]))
            if free and first.op_type == "Slice" and (joined := _join(first, node, build.constant)) is not None:
                del nodes[first.name]
                arrays = dict(zip(("starts", "ends", "axes", "steps"), joined, strict=True))
                names = [build.initializer(f"{node.name}_{name}", array) for name, array in arrays.items()]
                node.input[:] = [first.input[0], *names]
        nodes.update({node.name: node for node in replacement})
        producer.update({name: node for node in replacement for name in node.output})
    outputs = [value.name for value in model.graph.output]
    for node in tidy(list(nodes.values()), outputs, build):
        build.copy(node, node.input, node.output)
    return build.finish()


def _ranks(model: onnx.ModelProto, weights: Mapping[str, Shape]) -> dict[str, int]:
    """Return the number of axes of every value whose shape can be inferred."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    # Ranks depend only on the shapes of the weights, so any element type will do.
    probe.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in weights.items())
    graph = shape_inference.infer_shapes(probe).graph
    infos = (*graph.value_info, *graph.input, *graph.output)
    return {v.name: len(v.type.tensor_type.shape.dim) for v in infos if v.type.tensor_type.HasField("shape")}


def _over_space(node: onnx.NodeProto, rank: int | None, constant: Constant) -> bool:
    """Return whether a ReduceMean reduces all axes but the first two of a value with three or more."""
    axes = node_attributes(node).get("axes")
    if axes is None and len(node.input) > 1:
        axes = constant(node.input[1])
    if axes is None or rank is None or rank < 3:
        return False
    return sorted(int(axis) % rank for axis in np.reshape(axes, -1)) == list(range(2, rank))


def _pool(node: onnx.NodeProto, fresh: Callable[[str], str]) -> list[onnx.NodeProto]:
    """Return a GlobalAveragePool, followed by a Flatten if the mean drops its axes."""
    pool = helper.make_node("GlobalAveragePool", node.input[:1], node.output, name=node.name)
    if node_attributes(node).get("keepdims", 1):
        return [pool]
    pool.output[0] = fresh(f"{node.output[0]}_pooled")
    return [pool, helper.make_node("Flatten", pool.output, node.output, name=fresh(f"{node.name}_flatten"), axis=1)]


def _join(first: onnx.NodeProto, second: onnx.NodeProto, constant: Constant) -> list[NDArray[np.int64]] | None:
    """Return starts, ends, axes and steps of two Slices combined; None if axes are shared or unknown."""
    known: list[list[NDArray[np.int64]]] = []
    for node in (first, second):
        given = [constant(name) if name else None for name in node.input[1:]]
        if len(given) < 3 or any(array is None for array in given):
            return None
        arrays = [np.asarray(array, np.int64).reshape(-1) for array in given]
        known.append([*arrays, np.ones_like(arrays[0])][:4])
    axes = np.concatenate([arrays[2] for arrays in known])
    if (axes < 0).any() or len(set(axes.tolist())) != len(axes):
        return None
    return [np.concatenate(pair) for pair in zip(*known, strict=True)]
