"""Rules of layers whose weight is no plain matrix: convolutions, recurrent layers, embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx

from attar._src.model.dependencies.labels import Fields, along
from attar._src.model.dependencies.products import note_outputs, operator_name, with_bias
from attar._src.model.dependencies.propagation import ProductCost, Propagation
from attar._src.model.operators import argument, arguments, data_of, groups_of, operator_of, weight_of


class _Channels(NamedTuple):
    """The labels of a convolution: of its inputs, its outputs, and of both axes of its weight."""

    inputs: torch.Tensor
    outputs: torch.Tensor
    factors: tuple[torch.Tensor, ...]  # to whose numbers the multiplications are in proportion


def convolution(run: Propagation, node: fx.Node) -> Fields:
    """``(N, in, ...) x (out, in / groups, ...) -> (N, out, ...)``; transposed ``(in, out / groups, ...)``."""
    value = run.value(node)
    transposed = operator_of(node).output_axes[0] == 1
    data, weight = run.operand(data_of(node)[0]), run.operand(weight_of(node))
    rank = len(data[1])
    axis = rank - len(weight[1]) + 1
    run.freeze_other_axes(weight, (0, 1), "the size of a kernel is fixed")
    run.freeze_other_axes(data, (axis,), f"{operator_name(node)} moves over it")
    inputs = run.vector_or_fixed(data, axis, f"{operator_name(node)} reads a value of fixed size")
    rows, inner = (
        run.vector_or_fixed(weight, each, f"the weight of {operator_name(node)} has a fixed size") for each in (0, 1)
    )
    made = _of_groups(run, node, inputs, rows, inner, transposed=transposed)
    each_output = math.prod(weight[1]) // weight[1][0] * math.prod((data if transposed else (0, value.shape))[1][axis:])
    run.costs.append(ProductCost(node.name, each_output, made.factors))
    note_outputs(run, node, made.outputs)
    return with_bias(run, node, (along(made.outputs, axis, rank),), tuple(value.shape), axis)


def _of_groups(
    run: Propagation, node: fx.Node, inputs: torch.Tensor, rows: torch.Tensor, inner: torch.Tensor, *, transposed: bool
) -> _Channels:
    """Unite the channels of a convolution; ``rows`` and ``inner`` are the axes 0 and 1 of its weight.

    The units of one in groups are whole groups, or the same channels in each group, whichever are more: all 32 groups
    of 4 channels, but of 2 groups of 32 channels the channels.
    """
    labels, groups = run.labels, groups_of(node)
    why = (
        f"{operator_name(node)} multiplies its channels"
        if groups == 1
        else f"{operator_name(node)} has {groups} groups"
    )
    by_group, row_group = inputs.reshape(groups, -1), rows.reshape(groups, -1)
    if transposed:
        labels.unite(rows, inputs, why)
    if 1 < groups >= by_group.shape[1]:
        first = by_group[:, :1]
        labels.unite(by_group, first, why, same_tensor=True)
        labels.unite(row_group, row_group[:, :1], why, same_tensor=True)
        labels.unite(row_group[:, :1], first, why)
        labels.freeze(inner, f"{why} of a fixed size")
        run.counts[node, "groups"] = first.reshape(-1)
        outputs = first.expand(-1, len(inner)).reshape(-1) if transposed else rows
        return _Channels(inputs, outputs, (outputs,))
    labels.unite(by_group, by_group[:1], why, same_tensor=True)
    labels.unite(row_group, row_group[:1], why, same_tensor=True)
    if transposed:
        return _Channels(inputs, inner.repeat(groups), (rows, inner))
    labels.unite(by_group[0], inner, why)
    return _Channels(inputs, rows, (rows, inner))


def recurrent(run: Propagation, node: fx.Node) -> tuple[Fields, ...]:
    """LSTM, GRU and RNN: a hidden unit is one number in every gate, layer and direction."""
    value = run.value(node)
    data, states, parameters = run.operand(data_of(node)[0]), argument(node, "hx"), list(weight_of(node))
    biases, layers, both = arguments(node, "has_biases num_layers bidirectional")
    directions, count = 2 if both else 1, 4 if biases else 2
    fixed = f"{operator_name(node)} reads a value of fixed size"
    run.freeze_other_axes(data, (-1,), "the steps of a sequence are read one by one")
    below = run.vector_or_fixed(data, -1, fixed)
    steps = math.prod(data[1][:-1]) // value[1].shape[-2]
    units = run.vector_or_fixed(run.operand(parameters[1]), 1, fixed)
    for layer in range(layers):
        for direction in range(directions):
            start = (layer * directions + direction) * count
            _unite_gates(run, node, parameters[start : start + count], below, units, steps)
        below = units.repeat(directions)
    _join_states(run, states, units)
    fields = [along(below, -1, value[0].dim()), *(along(units, -1, each.dim()) for each in value[1:])]
    return tuple((field,) for field in fields)


def cell(run: Propagation, node: fx.Node) -> Any:
    """One step of an LSTM, a GRU or an RNN: ``(N, in), (N, hidden) -> (N, hidden)``."""
    value = run.value(node)
    why = f"{operator_name(node)} reads a value of fixed size"
    parameters = [argument(node, name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    units = run.vector_or_fixed(run.operand(parameters[1]), 1, why)
    below = run.vector_or_fixed(run.operand(argument(node, "input")), -1, why)
    _unite_gates(run, node, [each for each in parameters if each is not None], below, units, 1)
    _join_states(run, argument(node, "hx"), units)
    if isinstance(value, torch.Tensor):
        return (along(units, -1, value.dim()),)
    return tuple((along(units, -1, each.dim()),) for each in value)


def _unite_gates(
    run: Propagation, node: fx.Node, parameters: Sequence[Any], below: torch.Tensor, units: torch.Tensor, steps: int
) -> None:
    """Unite the rows of all gates with the hidden units; the parameters are both matrices, then the biases."""
    fixed = f"{operator_name(node)} reads a value of fixed size"
    why = f"{operator_name(node)} has one number of units"
    tensors = [run.operand(each) for each in parameters]
    columns, again = (run.vector_or_fixed(each, 1, fixed) for each in tensors[:2])
    run.labels.unite(again, units, why)
    for each in tensors:
        run.labels.unite(run.vector_or_fixed(each, 0, fixed).reshape(-1, len(units)), units, why)
    run.labels.unite(columns, below, f"{operator_name(node)} multiplies its channels")
    for read in (columns, again):
        run.costs.append(ProductCost(node.name, steps * tensors[0][1][0] * len(read), (units, read)))
    run.outputs += [(each, units) for each in run.names(parameters[0])]


def _join_states(run: Propagation, states: Any, units: torch.Tensor) -> None:
    for state in [states] if isinstance(states, fx.Node) else states:
        given = run.operand(state)
        own = (along(units, -1, len(given[1])),), (1,) * (len(given[1]) - 1) + (len(units),)
        run.labels.join([own, given], "its state is joined")


def embedding(run: Propagation, node: fx.Node) -> Fields:
    """Rows of a table ``(rows, channels)``, which the inputs choose."""
    value = run.value(node)
    table = run.operand(weight_of(node))
    run.freeze_other_axes(table, (1,), "the inputs choose its rows")
    columns = run.vector_or_fixed(table, 1, "its table has a fixed size")
    note_outputs(run, node, columns)
    return (along(columns, -1, value.dim()),)
