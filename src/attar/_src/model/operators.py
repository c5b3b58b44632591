"""What the table of operators (``core.operators``) says about the nodes of a traced graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

import torch
from torch import fx

from attar._src.core.operators import OPERATOR_TABLE, OperatorRow

aten = torch.ops.aten


def _index(operators: Iterable[OperatorRow]) -> Mapping[Any, list[OperatorRow]]:
    """Return overload -> its rows."""
    rows: dict[Any, list[OperatorRow]] = {}
    for row in operators:
        for name in row.aten.split():
            rows.setdefault(attrgetter(name)(aten), []).append(row)
    return rows


_ROWS = _index(OPERATOR_TABLE)


def operator_of(node: fx.Node) -> OperatorRow | None:
    """Return the row of a node, None where the table has none that holds for it."""
    rows = _ROWS.get(node.target, ())
    return next((row for row in rows if row.when is None or argument(node, row.when[0]) == row.when[1]), None)


def kind_of(node: fx.Node) -> str | None:
    """Return the kind of operator a node calls."""
    operator = operator_of(node)
    return operator.kind if operator else None


@cache
def argument_position(target: Any, name: str) -> int:
    """Return the position of an argument in the schema of an overload."""
    return [each.name for each in target._schema.arguments].index(name)


def argument(node: fx.Node, name: str) -> Any:
    """Return an argument of a node, or the default of the schema where it was not given."""
    if name in node.kwargs:
        return node.kwargs[name]
    place = argument_position(node.target, name)
    return node.args[place] if place < len(node.args) else node.target._schema.arguments[place].default_value  # type: ignore[union-attr]


def arguments(node: fx.Node, names: str) -> list[Any]:
    """Return several arguments of a node by their names, separated by spaces."""
    return [argument(node, name) for name in names.split()]


def data_of(node: fx.Node) -> list[Any]:
    """Return the arguments that are data: ``[x]`` of a convolution, ``[a, b]`` of ``a + b`` or a matrix product."""
    operator = operator_of(node)
    return [argument(node, name) for name in operator.data] if operator else []


def weight_of(node: fx.Node) -> Any:
    """Return what stands where a weight may be, None where the operator has none."""
    operator = operator_of(node)
    return argument(node, operator.weight) if operator and operator.weight else None


def bias_of(node: fx.Node) -> Any:
    """Return what is added to each output channel, None where there is nothing."""
    operator = operator_of(node)
    return argument(node, operator.bias) if operator and operator.bias else None


def groups_of(node: fx.Node) -> int:
    """Return the number of groups that share the channels of a node between them: 1 where it is no convolution."""
    operator = operator_of(node)
    return int(argument(node, operator.groups)) if operator and operator.groups else 1


def output_axes(node: fx.Node, rank: int) -> tuple[int, ...]:
    """Return the axes of a weight of ``rank`` axes that number the output channels of the node that reads it.

    ``(0,)`` for a convolution, ``(0, 1)`` for a grouped transposed one (groups, then channels of each), ``(0, 2)`` for
    experts ``(E, in, out)``. The last of them is the axis that scales run along.
    """
    operator = operator_of(node)
    assert operator is not None
    if operator.input_axis is not None:
        return tuple(axis for axis in range(rank) if axis != operator.input_axis % rank)
    if operator.grouped_axes is not None and groups_of(node) > 1:
        return operator.grouped_axes
    return operator.output_axes


def channel_axis(node: fx.Node) -> int:
    """Return the axis of the channels in the data and output of a layer: 1 of a convolution, -1 of a linear layer."""
    operator = operator_of(node)
    assert operator is not None
    return operator.channel_axis


def is_layer(node: fx.Node) -> bool:
    """Whether a node is a convolution or linear layer, in the form that modules call."""
    operator = operator_of(node)
    return operator is not None and operator.kind == "layer" and not operator.decomposed


def is_batch_norm(node: fx.Node) -> bool:
    """Whether a node is a batch-norm that can be in training or evaluation mode."""
    operator = operator_of(node)
    return operator is not None and operator.kind == "batch_norm" and not operator.decomposed


def is_identity(node: fx.Node) -> bool:
    """Whether a node returns its input in evaluation mode, as dropout does."""
    operator = operator_of(node)
    return operator is not None and operator.identity


def moves(node: fx.Node) -> bool:
    """Whether every element of a node's output is an element of its inputs, or zero."""
    operator = operator_of(node)
    if operator is None or operator.kind != "move":
        return False
    return not operator.fills or any(is_zero(argument(node, name)) for name in operator.fills)


def is_zero(value: Any) -> bool:
    """Whether an argument fills in zeros: 0, None or a scalar tensor of it."""
    if isinstance(value, fx.Node):
        return value.target is aten.scalar_tensor.default and value.args == (0,)
    return value in (0, None)
