"""Weights and biases of integer layers, in the form in which integer kernels compute exactly.

An integer kernel sums products of input codes q and weight codes c in 32 bits, in steps of S = S_x S_w, and adds a bias
of B steps:

    y = S (sum q c + B),       sum |q| |c| + |B| <= 2^31 - 1,       S a normal number of float32

**Bias.** B is whole: at S_x = 0.1 and S_w = 0.02 a bias of 0.5013 is 251 steps, 0.502. Rounded here, the PyTorch module
and the decoded file add the same number. Otherwise each layer moves a few values per thousand to the next code, and
differences grow with depth.

**Scale.** A dead channel (a pruned filter, a batch-norm factor of zero) fits any S_w: it gets the largest of its
tensor. In a faint one, such as a batch-norm factor of 1e-6 beside a bias of 1.5, |B| exceeds 2^31. Its S_w is
multiplied by the least power of two that brings the left side to 2^30, and its codes are rounded to the coarser grid.
That moves a product by at most 255 S / 2 <= 255 |bias| 2^-30, or 2^-22 of the bias, as the rounding of a float32 sum
does. Rounding raises a sum of n products by at most 255 n / 2, so it still fits for n up to 8 million.

**Pairs.** Fast kernels of some processors add two products in 16 bits, which 8-bit weights may exceed. Their channels
get a wider step (``methods.quantize.pair_sums``), so that a file is as exact at full speed on these as on others.
What depends on the rounding of a weight, such as bias correction, should follow (``fit_weights``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from attar._src.artifact.manifest import Activation
from attar._src.core.numbers.steps import from_steps, step_sizes, to_steps
from attar._src.core.operators import INTEGER_KERNELS
from attar._src.core.scheme import PerChannel, PerTensor
from attar._src.core.tensors import CompressedTensor, Dense, Quantized
from attar._src.methods.quantize.pair_sums import fit_pairs
from attar._src.methods.quantize.ptq.solvers.solver import TINY, flat_index
from attar._src.model.operators import bias_of, data_of, groups_of, operator_of
from attar._src.model.weights import find_weights
from attar._src.runtime.accumulator import pair_limit
from attar._src.work.compressed_model import CompressedGraph, CompressedModel

_INT32 = 2.0**31 - 1
_AIM = 2.0**30
#: Largest code of a dynamic grid, and largest distance of one from its zero point.
LARGEST_CODE = 255
_UNUSED = 2.0**-14  # least value for scales of all-zero codes: the smallest normal number of half precision


@dataclass(frozen=True)
class _Use:
    """A layer that multiplies a quantized input by a symmetric quantized weight.

    Attributes:
        weight: name of the weight.
        axis: of the weight's output channels.
        bias: name of the bias, None without one.
        scale: S_x of the input.
        reach: largest |q| of the input, ``code - zero_point``.
        pairs: largest sum of two weight codes that fits 16 bits; None where the kernel adds in 32 bits.
        groups: of a convolution.
    """

    weight: str
    axis: int
    bias: str | None
    scale: float
    reach: int
    pairs: int | None = None
    groups: int = 1


def fit_weights(
    model: CompressedModel, values: Mapping[str, NDArray[np.float32]] = MappingProxyType({})
) -> CompressedModel:
    """Return the model with weights of which pairs of products fit 16 bits where its integer layers add them so.

    Args:
        values: weight -> what was rounded to its codes, in float32; of others the codes are rounded again.
    """
    if not _has_integers(model):
        return model
    stored = model.stored()
    fitted, widened = dict[str, CompressedTensor](), dict(model.widened)
    for name, readers in _readers(model, stored).items():
        tensor = stored[name]
        assert isinstance(tensor, Quantized)
        limits = [use.pairs for use in readers if use.pairs is not None]
        if not limits:
            continue
        paired, count = fit_pairs(tensor, readers[0].axis, min(limits), readers[0].groups, values.get(name))
        if count:  # dead channels keep the largest scale
            fitted[name], widened[name] = replace(paired, scale=used_scales(paired)), count
    return replace(model, tensors={**model.tensors, **fitted}, widened=widened) if fitted else model


def fit_integer_layers(model: CompressedModel) -> CompressedModel:
    """Return the model with weights, scales and biases of its integer layers as integer kernels need them.

    A bias that several graphs add in different steps becomes one for each: ``step_head_bias`` of the graph ``step``. A
    bias that layers of one graph add in different steps stays as it is, and so does one that is infinite.
    """
    if not _has_integers(model):
        return model
    model = fit_weights(model)
    stored = model.stored()
    fitted = dict[str, CompressedTensor]()
    for name, readers in _readers(model, stored).items():
        tensor = stored[name]
        assert isinstance(tensor, Quantized)
        if (changed := _fit_scales(tensor, readers, stored)) is not tensor:
            fitted[name] = changed
    tensors, graphs = {**model.tensors, **fitted}, dict(model.graphs)
    current = {**stored, **fitted}
    rounded = {name: _round_biases(_uses(each, current), current) for name, each in model.graphs.items()}
    for graph, biases in rounded.items():
        own: dict[str, str] = {}
        for name, bias in biases.items():
            others = [
                rounded[other].get(name) for other, each in graphs.items() if name in model.graphs[other].traced.names
            ]
            if any(other is None or not np.array_equal(bias.data, other.data) for other in others):
                own[name] = f"{graph}_{name}".replace(".", "_")
            tensors[own.get(name, name)] = bias
        if own:
            graphs[graph] = replace(graphs[graph], traced=graphs[graph].traced.renamed(own))
    return replace(model, tensors=tensors, graphs=graphs)


def _has_integers(model: CompressedModel) -> bool:
    return any(graph.activations or graph.dynamic for graph in model.graphs.values())


def _readers(model: CompressedModel, tensors: Mapping[str, CompressedTensor]) -> dict[str, list[_Use]]:
    """Return each weight of integer layers -> its uses, in all graphs."""
    found: dict[str, list[_Use]] = defaultdict(list)
    for graph in model.graphs.values():
        for use in _uses(graph, tensors):
            found[use.weight].append(use)
    return found


def integer_biases(model: CompressedModel) -> frozenset[str]:
    """Return the names of the biases that integer layers add in whole steps."""
    stored = model.stored()
    uses = (use for graph in model.graphs.values() for use in _uses(graph, stored))
    return frozenset(use.bias for use in uses if use.bias is not None)


def used_scales(tensor: Quantized) -> NDArray[np.float32]:
    """Return the scales, with those of all-zero codes (a switched-off channel) replaced by the largest of the others.

    Such a scale may be the smallest number of float32, and would rule out half precision and integer kernels.
    """
    index = flat_index(tensor.codes, tensor.scheme)
    zero = 0 if tensor.zero_point is None else tensor.zero_point[index]
    used = np.zeros(tensor.scale.size, np.bool_)
    used[index[tensor.codes.reshape(-1) != zero]] = True
    return np.where(used, tensor.scale, tensor.scale[used].max(initial=_UNUSED))


def _uses(graph: CompressedGraph, tensors: Mapping[str, CompressedTensor]) -> Iterable[_Use]:
    nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
    for name, weight in find_weights(graph.traced.graph).items():
        tensor, channels = tensors.get(name), weight.channels
        # No integer kernel has scales of blocks.
        if weight.role == "embedding" or not isinstance(tensor, Quantized) or not isinstance(channels, PerChannel):
            continue
        if scale_count(tensor, channels.axis) is None:
            continue
        for reader in weight.readers:
            data, bias = data_of(nodes[reader])[0], bias_of(nodes[reader])
            grid = graph.activations.get(data.name) if isinstance(data, fx.Node) else None
            if reader in graph.dynamic:
                # Its bias is added in floating point, and its scale is not known; so are those of an LSTM or GRU.
                yield _Use(name, channels.axis, None, 1.0, LARGEST_CODE, pair_limit(LARGEST_CODE), 1)
            elif grid is not None and weight.role == "product":
                known = isinstance(bias, fx.Node) and str(bias.target) in tensors
                reach = max(grid.zero_point - grid.qmin, grid.qmax - grid.zero_point)
                scale = float(np.float32(grid.scale))
                yield _Use(
                    name, channels.axis, str(bias.target) if known else None, scale, reach, *_pairs(nodes[reader], grid)
                )


def _pairs(node: fx.Node, grid: Activation) -> tuple[int | None, int]:
    """Return ``pairs`` and ``groups`` of a use."""
    kernels = [INTEGER_KERNELS[name] for name in operator_of(node).onnx.split() if name in INTEGER_KERNELS]
    largest = max(grid.qmax, grid.zero_point) + (128 if grid.signed else 0)  # as uint8, which kernels read
    return pair_limit(largest) if any(kernel.names for kernel in kernels) else None, groups_of(node)


def scale_count(tensor: Quantized, axis: int) -> int | None:
    """Return the number of scales along the output axis that an integer kernel could apply, None if it cannot."""
    granularity, count = tensor.scheme.granularity, tensor.scale.size
    if tensor.zero_point is not None or count not in (1, tensor.shape[axis]):
        return None
    along = count == 1 or (isinstance(granularity, PerChannel) and granularity.axis == axis)
    # A group or bucket that fills a channel counts as a channel.
    whole = count == tensor.shape[axis] and not isinstance(granularity, PerChannel | PerTensor)
    return count if along or (whole and getattr(granularity, "axis", 0) == axis) else None


def _fit_scales(tensor: Quantized, uses: Sequence[_Use], tensors: Mapping[str, CompressedTensor]) -> Quantized:
    """Return a weight with scales of which every sum of its layers fits 32 bits; itself if they all fit already."""
    if (tensor.scale <= TINY).any():
        scale = np.where(tensor.scale <= TINY, used_scales(tensor), tensor.scale)
        tensor = tensor if (scale == tensor.scale).all() else replace(tensor, scale=scale)
    axis = uses[0].axis
    others = tuple(each for each in range(tensor.codes.ndim) if each != axis)
    sums = np.abs(tensor.codes.astype(np.int64)).sum(others)
    power = np.zeros(sums.size)
    for use in uses:
        step = tensor.scale.astype(np.float64) * use.scale
        total = sums * use.reach + _magnitude(use.bias, tensors, sums.size) / step
        power = np.maximum(power, np.where(total > _INT32, np.ceil(np.log2(np.maximum(total, 1) / _AIM)), 0))
        # Beside the others of its tensor such a channel is zero; where all are so small, they stay what they are.
        normal = np.ceil(np.log2(np.maximum(TINY / step, 1)))
        power = np.maximum(power, np.where(tensor.scale * 2.0**normal <= tensor.scale.max(), normal, 0))
    if not power.any():
        return tensor
    factor = 2.0 ** (power if tensor.scale.size > 1 else power.max(keepdims=True))
    along = [-1 if each == axis and factor.size > 1 else 1 for each in range(tensor.codes.ndim)]
    codes = np.rint(tensor.codes / factor.reshape(along)).astype(np.int8)
    # A power of two keeps scales that are stored in 16 bits exact.
    return replace(tensor, codes=codes, scale=(tensor.scale * factor).astype(np.float32))


def _magnitude(name: str | None, tensors: Mapping[str, CompressedTensor], channels: int) -> NDArray[np.float64]:
    """Return the magnitudes of the finite numbers of a bias, zero for the others and without a bias."""
    values: NDArray[Any] = np.zeros(channels) if name is None else tensors[name].dense().reshape(-1)
    if values.size != channels:
        return np.zeros(channels)
    return np.where(np.isfinite(values), np.abs(values.astype(np.float64)), 0.0)


def _round_biases(uses: Iterable[_Use], tensors: Mapping[str, CompressedTensor]) -> dict[str, Dense]:
    """Return name -> bias in whole steps of every layer that adds it; a compressed one from its decoded values."""
    rounded: dict[str, list[NDArray[np.float32] | None]] = defaultdict(list)
    for use in uses:
        if use.bias is not None:
            rounded[use.bias].append(_whole_steps(tensors[use.bias].dense(), use, tensors[use.weight]))
    return {
        name: Dense(first)
        for name, (first, *others) in rounded.items()
        if first is not None and all(each is not None and np.array_equal(first, each) for each in others)
    }


def _whole_steps(values: NDArray[Any], use: _Use, weight: CompressedTensor) -> NDArray[np.float32] | None:
    assert isinstance(weight, Quantized)
    if values.size != weight.shape[use.axis]:
        return None
    sizes = step_sizes(use.scale, weight.scale)
    steps = to_steps(values, sizes)
    return None if steps is None else from_steps(steps, sizes)
