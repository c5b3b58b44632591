"""Cross-layer equalization: scale channels so that two layers have equal ranges; the network computes the same.

Between two layers with ``f(s x) = s f(x)`` for s > 0 (ReLU, PReLU, pooling, none), for channel i

    W1_i / s_i,   b1_i / s_i,   W2_i s_i,        s_i = sqrt(r1_i / r2_i),

leave the output as it is, and make the ranges r of W1's output channel i and of W2's input channel i equal, ``sqrt(r1_i
r2_i)``. With one scale for a tensor, or for an activation, no channel is then lost in the steps of another. Nagel, van
Baalen, Blankevoort, Welling, "Data-free quantization through weight equalization and bias correction", ICCV 2019 (arXiv
1906.04721), section 4.1, equations 9 to 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from attar._src.core.tensors import Dense
from attar._src.methods.quantize.ptq.equalize.pairs import Pair, find_pairs
from attar._src.work.compressed_model import CompressedModel

_Real = NDArray[np.float64]
#: Sweeps over all pairs, and the largest change of a range after which there is no other.
SWEEPS, ENOUGH = 40, 1e-3

NOTHING_EQUALIZED = (
    "equalize found no two layers with a function between them for which f(s x) = s f(x), such as ReLU, that read each "
    "other alone and have weights of their own; leave it out"
)


def with_equal_channels(model: CompressedModel) -> tuple[CompressedModel, list[str]]:
    """Return the model with equalized channels, the number of pairs of layers in its notes; a warning if there is none.

    Tensors that several graphs read, that are compressed already, or that the export has baked in stay as they are;
    and so do channels in which a weight is all zero.
    """
    left = model.shared() | model.tensors.keys()
    graphs, tensors, count = dict(model.graphs), dict(model.tensors), 0
    for name, graph in model.graphs.items():
        traced = graph.traced
        fixed = left | traced.baked.keys()
        pairs = [
            pair for pair in find_pairs(traced.graph) if fixed.isdisjoint((pair.first, pair.second, pair.bias or ""))
        ]
        if not pairs:
            continue
        state = traced.state()
        names = dict.fromkeys(each for pair in pairs for each in (pair.first, pair.bias, pair.second) if each)
        values = {each: state[each].numpy().astype(np.float64) for each in names}
        equalize(pairs, values)
        changed = {each: value.astype(np.float32) for each, value in values.items()}
        if not all(np.isfinite(value).all() for value in changed.values()):
            continue
        tensors |= {each: Dense(value) for each, value in changed.items()}
        state |= {each: torch.from_numpy(value) for each, value in changed.items()}
        graphs[name] = replace(graph, traced=traced.with_state(state, traced.folding))
        count += len(pairs)
    if not count:
        return model, [NOTHING_EQUALIZED]
    notes = {**model.notes, "equalize": f"{count} pairs of layers"}
    return replace(model, graphs=graphs, tensors=tensors, notes=notes), []


def equalize(pairs: Sequence[Pair], values: dict[str, _Real]) -> None:
    """Equalize weights and biases in place, sweeping over all pairs until ranges stay.

    Example:
        Linear layers with W1 = [[8], [1]] and W2 = [[0.5, 4]]: s = (4, 0.5), and then W1 = W2^T = [[2], [2]].
    """
    for _ in range(SWEEPS):
        largest = 0.0
        for pair in pairs:
            first, second = values[pair.first], values[pair.second]
            before, after = np.abs(first.reshape(len(first), -1)).max(1, initial=0), _input_ranges(second, pair)
            fits = (before > 0) & (after > 0)
            factor = np.sqrt(np.where(fits, before, 1) / np.where(fits, after, 1))
            values[pair.first] = first / factor.reshape(-1, *[1] * (first.ndim - 1))
            if pair.bias is not None:
                values[pair.bias] = values[pair.bias] / factor
            values[pair.second] = _by_inputs(second, pair.groups) * _per_input(factor, pair, second.ndim)
            values[pair.second] = values[pair.second].reshape(second.shape)
            largest = max(largest, float(np.abs(np.log(factor)).max(initial=0)))
        if largest < ENOUGH:
            break


def _by_inputs(weight: _Real, groups: int) -> _Real:
    """Return a weight ``(out, in / groups, ...)`` as ``(groups, out / groups, in / groups, ...)``."""
    return weight.reshape(groups, -1, *weight.shape[1:])


def _input_ranges(weight: _Real, pair: Pair) -> _Real:
    """Return the largest magnitude by which each channel of the first layer is multiplied."""
    split = np.moveaxis(_by_inputs(np.abs(weight), pair.groups), 2, 1)
    found: _Real = split.reshape(-1, pair.repeats, int(np.prod(split.shape[2:]))).max((1, 2), initial=0)
    return found


def _per_input(factor: _Real, pair: Pair, rank: int) -> _Real:
    return factor.repeat(pair.repeats).reshape(pair.groups, 1, -1, *[1] * (rank - 2))
