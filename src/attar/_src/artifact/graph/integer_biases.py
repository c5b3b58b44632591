"""Biases that integer layers of a stored graph add in whole steps of input scale times weight scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx

from attar._src.artifact.bindings import whole
from attar._src.artifact.contents import GraphContents
from attar._src.core.numbers.steps import from_steps, step_sizes, to_steps
from attar._src.core.tensors import CompressedTensor, Dense, Quantized

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_FACTORS = ("alpha", "beta")  # of a Gemm, by default 1


class Steps(NamedTuple):
    """What a bias is added to: products by the tensor ``weight`` of values on a grid of scale ``input_scale``."""

    weight: str
    input_scale: float


def bias_steps(graphs: Iterable[GraphContents], tensors: Mapping[str, CompressedTensor]) -> dict[str, Steps]:
    """Return name of a bias -> its steps, of biases in float32 that are whole steps of all their layers."""
    found: dict[str, set[Steps]] = {}
    for graph in graphs:
        for bias, steps in _of_graph(graph):
            found.setdefault(bias, set()).add(steps)
    single = {bias: next(iter(each)) for bias, each in found.items() if len(each) == 1}
    return {bias: steps for bias, steps in single.items() if _fits(tensors.get(bias), tensors.get(steps.weight), steps)}


def _of_graph(graph: GraphContents) -> Iterator[tuple[str, Steps]]:
    grids = {activation.value: activation.scale for activation in graph.activations}
    sources = {binding.to: one.tensor for binding in graph.bindings if (one := whole(binding)) is not None}
    for node in graph.model.graph.node:
        if node.op_type in _LAYERS and len(node.input) > 2 and node.input[0] in grids and _is_plain(node):
            _, weight, bias = node.input[:3]
            if weight in sources and bias in sources:
                yield sources[bias], Steps(sources[weight], float(np.float32(grids[node.input[0]])))


def _is_plain(node: onnx.NodeProto) -> bool:
    return all(attribute.f == 1 for attribute in node.attribute if attribute.name in _FACTORS)


def _fits(bias: Any, weight: Any, steps: Steps) -> bool:
    """Return whether a bias is whole steps of a weight."""
    if not isinstance(bias, Dense) or bias.dtype != "f32" or bias.data.ndim != 1:
        return False
    if (
        not isinstance(weight, Quantized)
        or weight.zero_point is not None
        or weight.scale.size not in (1, bias.data.size)
    ):
        return False
    sizes = step_sizes(steps.input_scale, weight.scale)
    numbers = to_steps(bias.data, sizes)
    return numbers is not None and np.array_equal(from_steps(numbers, sizes), bias.data)
