"""Pairs of layers between which channels may be scaled."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx

from attar._src.model.operators import (
    argument,
    bias_of,
    data_of,
    groups_of,
    is_layer,
    is_zero,
    operator_of,
    output_axes,
    weight_of,
)


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone reads what the first computes, through f with f(s x) = s f(x) for s > 0.

    Attributes:
        first, second: names of the weights, ``(out, in, ...)``.
        bias: name of the bias of the first layer, None without one.
        groups: of the second layer.
        repeats: inputs of the second layer for each channel of the first: 4 where ``(N, C, 2, 2)`` was flattened.
    """

    first: str
    bias: str | None
    second: str
    groups: int
    repeats: int


@dataclass(frozen=True)
class _Value:
    """A value between the layers: its node, the axis of its channels, and how many of them are one of the first's."""

    node: fx.Node
    axis: int
    repeats: int = 1


def find_pairs(graph: fx.GraphModule) -> list[Pair]:
    """Return the pairs of a traced graph in its order.

    A weight or bias that several nodes read, tied ones included, is in none.
    """
    uses = Counter(str(node.target) for node in graph.graph.find_nodes(op="get_attr") for _ in node.users)
    found = []
    for first in graph.graph.nodes:
        weight, bias = _own(first, uses)
        rank = _rank(first)
        if weight is None or not rank:
            continue
        value = _Value(first, operator_of(first).channel_axis % rank)
        while (following := _following(value)) is not None:
            value = following
        second = next(iter(value.node.users), None)
        if len(value.node.users) != 1 or second is None:
            continue
        other, _ = _own(second, uses)
        if other is not None and _reads_channels(second, value):
            found.append(Pair(weight, bias, other, groups_of(second), value.repeats))
    return found


def _own(node: fx.Node, uses: Counter[str]) -> tuple[str | None, str | None]:
    """Return the weight and the bias of a layer if no other node reads them, else None for the weight."""
    if not is_layer(node):
        return None, None
    weight, bias = weight_of(node), bias_of(node)
    tensors = [each for each in (weight, bias) if each is not None]
    if any(not isinstance(each, fx.Node) or each.op != "get_attr" or uses[str(each.target)] > 1 for each in tensors):
        return None, None
    if output_axes(node, weight.meta["val"].dim()) != (0,):
        return None, None
    return str(weight.target), None if bias is None else str(bias.target)


def _following(value: _Value) -> _Value | None:
    """Return the value behind the one node that reads this one, if it is homogeneous; None if it is not."""
    if len(value.node.users) != 1:
        return None
    node = next(iter(value.node.users))
    operator, before, after = operator_of(node), value.node.meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return None
    if data_of(node) and data_of(node)[0] is not value.node:
        return None
    if operator.homogeneous:
        if any(not is_zero(argument(node, name)) for name in operator.fills):
            return None
        if operator.mixes not in ("", "spatial"):
            axes = {axis % before.dim() for axis in _integers(argument(node, operator.mixes))}
            lost = 0 if argument(node, "keepdim") else sum(axis < value.axis for axis in axes)
            return None if not axes or value.axis in axes else _Value(node, value.axis - lost, value.repeats)
        return _Value(node, value.axis, value.repeats) if before.dim() == after.dim() else None
    if operator.kind == "move" and operator.keeps_order and value.axis == 1 and after.dim() == 2:
        sizes = list(before.shape[1:])
        if after.shape[0] == before.shape[0] and all(isinstance(each, int) for each in sizes):
            return _Value(node, 1, value.repeats * prod(sizes[1:])) if prod(sizes) == after.shape[1] else None
    return None


def _reads_channels(layer: fx.Node, value: _Value) -> bool:
    """Return whether the channels of a value are those that a layer reads."""
    rank = _rank(value.node)
    axis = operator_of(layer).channel_axis % rank
    return data_of(layer)[0] is value.node and axis == value.axis and (value.repeats == 1 or axis == rank - 1)


def _rank(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else 0


def _integers(given: Any) -> list[int]:
    return [given] if isinstance(given, int) else list(given or ())
