"""What the table of operators (``core.operators``) says about the nodes of a traced graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import torch
from torch import fx

from attar._src.core.operators import OPERATOR_TABLE, OperatorRow
from attar._src.model.readings.reading_op import READING
from attar._src.model.recurrent import packed_op

aten = torch.ops.aten
_NAMESPACES = {"aten": aten} | {own: getattr(torch.ops, own) for own in (packed_op.NAMESPACE, READING.namespace)}
_UNKNOWN = OperatorRow("", data=())


def _index(operators: Iterable[OperatorRow]) -> Mapping[Any, list[OperatorRow]]:
    """Return overload -> its rows."""
    rows: dict[Any, list[OperatorRow]] = {}
    for row in operators:
        for name in row.aten.split():
            namespace, _, overload = name.rpartition("::")
            rows.setdefault(attrgetter(overload)(_NAMESPACES[namespace or "aten"]), []).append(row)
    return rows


_ROWS = _index(OPERATOR_TABLE)


def operator_of(node: fx.Node) -> OperatorRow:
    """Return the row of the operator that a node calls; an empty row of kind ``"other"`` if the table has none."""
    rows = _ROWS.get(node.target, ())
    return next((row for row in rows if row.when is None or argument(node, row.when[0]) == row.when[1]), _UNKNOWN)


def kind_of(node: fx.Node) -> str:
    """Return the kind of operator a node calls."""
    return operator_of(node).kind


@cache
def argument_position(target: Any, name: str) -> int:
    """Return the position of an argument in the schema of an overload."""
    return [each.name for each in target._schema.arguments].index(name)


def argument(node: fx.Node, name: str) -> Any:
    """Return an argument of a node, or the schema's default."""
    if name in node.kwargs:
        return node.kwargs[name]
    place = argument_position(node.target, name)
    return node.args[place] if place < len(node.args) else node.target._schema.arguments[place].default_value  # type: ignore[union-attr]


def arguments(node: fx.Node, names: str) -> list[Any]:
    """Return several arguments of a node; ``names`` are separated by spaces."""
    return [argument(node, name) for name in names.split()]


def data_of(node: fx.Node) -> list[Any]:
    """Return the arguments that are data: ``[x]`` of a convolution, ``[a, b]`` of ``a + b`` or a matrix product."""
    return [argument(node, name) for name in operator_of(node).data]


def weight_of(node: fx.Node) -> Any:
    """Return the argument that may be a weight, None if the operator has none."""
    name = operator_of(node).weight
    return argument(node, name) if name else None


def bias_of(node: fx.Node) -> Any:
    """Return the argument that is added to each output channel, or None."""
    name = operator_of(node).bias
    return argument(node, name) if name else None


def groups_of(node: fx.Node) -> int:
    """Return the number of groups of a convolution, 1 for other operators."""
    name = operator_of(node).groups
    return int(argument(node, name)) if name else 1


def output_axes(node: fx.Node, rank: int) -> tuple[int, ...]:
    """Return the axes of a weight of ``rank`` axes that number the output channels of the node that reads it.

    ``(0,)`` for a convolution, ``(0, 1)`` for a grouped transposed one (groups, then channels of each), ``(0, 2)`` for
    experts ``(E, in, out)``.
    """
    operator = operator_of(node)
    if operator.input_axis is not None:
        return tuple(axis for axis in range(rank) if axis != operator.input_axis % rank)
    if operator.grouped_axes is not None and groups_of(node) > 1:
        return operator.grouped_axes
    return operator.output_axes


def channel_sizes(node: fx.Node, operand: fx.Node, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the sizes of one output channel of ``node`` in an operand of this shape, None if it is no weight there.

    Example: ``(1, 8, 3, 3)`` of a convolution's weight ``(16, 8, 3, 3)``; ``(4, 1, 3, 3)`` of that of a transposed one,
    ``(8, 6, 3, 3)`` in 2 groups; ``(1, 8)`` of the first factor ``(16, 8)`` of a product.
    """
    operator, rank = operator_of(node), len(shape)
    if node.target is aten.einsum.default:
        axes = _einsum_axes(node, operand, rank)
    elif weight_of(node) is operand or (operator.kind == "recurrent" and operand in weight_of(node)):
        axes = output_axes(node, rank)
    elif operator.kind == "product" and operator.input_axis is not None and data_of(node)[0] is operand:
        axes = tuple(range(rank - 1))
    else:
        return None
    sizes = [1 if axis in axes else length for axis, length in enumerate(shape)]
    if operator.grouped_axes is not None and axes == operator.grouped_axes:
        sizes[axes[0]] = shape[axes[0]] // groups_of(node)
    return tuple(sizes)


def _einsum_axes(node: fx.Node, operand: fx.Node, rank: int) -> tuple[int, ...]:
    """Return the axes of an operand that are not summed over in its own product.

    In ``beo,eoi,be->bi`` the second operand has the output channels ``(e, i)``: e is summed over afterwards.
    """
    equation, operands = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        out = "..." + "".join(letter for letter in left if left.count(letter) == 1)
    # An ellipsis stands for the axes that the letters leave over.
    head, dots, tail = terms[operands.index(operand)].partition("...")
    every = [*head, *(["..."] * (rank - len(head) - len(tail)) if dots else []), *tail]
    kept = [each in out or sum(each in term for term in terms) > 2 for each in every]
    return tuple(axis for axis, keep in enumerate(kept) if keep)


def is_layer(node: fx.Node) -> bool:
    """Whether a node is a convolution or linear layer, in the form that modules call."""
    operator = operator_of(node)
    return operator.kind == "layer" and not operator.decomposed


def is_batch_norm(node: fx.Node) -> bool:
    """Whether a node is a batch-norm that can be in training or evaluation mode."""
    operator = operator_of(node)
    return operator.kind == "batch_norm" and not operator.decomposed


def is_floating(node: fx.Node) -> bool:
    """Whether the value of a node is a floating-point tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def moves(node: fx.Node) -> bool:
    """Whether every element of a node's output is an element of its inputs, or zero."""
    operator = operator_of(node)
    fills_zero = not operator.fills or any(is_zero(argument(node, name)) for name in operator.fills)
    return operator.kind == "move" and fills_zero


def is_zero(value: Any) -> bool:
    """Whether an argument that fills in values is 0: None, a number or a scalar tensor."""
    if isinstance(value, fx.Node):
        return value.target is aten.scalar_tensor.default and value.args == (0,)
    return value in (0, None)
