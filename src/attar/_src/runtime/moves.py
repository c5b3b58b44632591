"""Operators that only move a weight, done once when a file is opened: its parts then multiply like weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.runtime.builder import node_attributes

#: Operators that :func:`moved` computes.
MOVES = frozenset(
    {"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Split", "Gather", "GatherND", "Slice"}
)


def moved(node: onnx.NodeProto, x: NDArray[Any], given: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the outputs of a node of :data:`MOVES`.

    Args:
        node: the node.
        x: its first input.
        given: its other inputs.
    """
    attributes = node_attributes(node)
    axis = int(attributes.get("axis", 0))
    match node.op_type:
        case "Transpose":
            return [x.transpose(attributes.get("perm"))]
        case "Reshape":
            copied = not attributes.get("allowzero", 0)
            return [x.reshape([x.shape[i] if size == 0 and copied else int(size) for i, size in enumerate(given[0])])]
        case "Flatten":
            axis = int(attributes.get("axis", 1)) % (x.ndim + 1)
            return [x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)]
        case "Squeeze":
            return [x.squeeze(tuple(map(int, given[0])) if given else None)]
        case "Unsqueeze":
            return [np.expand_dims(x, tuple(map(int, given[0])))]
        case "Split":
            count = len(node.output)
            sizes = given[0] if given else [-(-x.shape[axis] // count)] * count
            return np.split(x, np.cumsum(sizes)[:-1].tolist(), axis)
        case "Gather":
            return [np.take(x, given[0], axis)]
        case "GatherND" if not attributes.get("batch_dims", 0):
            return [x[tuple(np.moveaxis(given[0], -1, 0))]]
        case "GatherND":
            raise ValueError("batches of indices")
        case "Slice":
            starts, ends, *rest = given
            axes = rest[0] if rest else range(len(starts))
            steps = rest[1] if len(rest) > 1 else np.ones(len(starts), np.int64)
            cut = [slice(None)] * x.ndim
            for place, start, end, step in zip(axes, starts, ends, steps, strict=True):
                # From the last to the first, the end lies before the first.
                before = step < 0 and end < -x.shape[place]
                cut[place] = slice(int(start), None if before else int(end), int(step))
            return [x[tuple(cut)]]
    return [x]
