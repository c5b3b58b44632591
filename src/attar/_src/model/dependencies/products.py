"""Rules of products of data with data or a matrix: linear layers, products of matrices, attention.

A product multiplies its operands element by element in the space of all their axes, and sums over some of these: each
operand's axes have letters, as in ``torch.einsum``. Channels that are multiplied go together; what is summed over is
left out of the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from attar._src.model.dependencies.labels import Field, Fields, Operand, along, varying
from attar._src.model.dependencies.propagation import ProductCost, Propagation
from attar._src.model.operators import argument, bias_of, data_of, operator_of, weight_of


def contract(run: Propagation, node: fx.Node, letters: Sequence[str], operands: Sequence[Operand], out: str) -> Fields:
    """Return the fields of a product with these letters: ``("nk", "ok")`` to ``"no"`` for a linear layer."""
    every = "".join(dict.fromkeys(out + "".join(letters)))
    placed, sizes = [], dict.fromkeys(every, 1)
    for names, (fields, shape) in zip(letters, operands, strict=True):
        for letter, size in zip(names, shape, strict=True):
            sizes[letter] = max(sizes[letter], size)
        placed.append((tuple(_placed(field, names, every) for field in fields), _shape(shape, names, every)))
    why = f"{operator_name(node)} multiplies its channels"
    joined = run.labels.join(placed, why)
    factors = [run.labels.one_axis(field).reshape(-1) for field in joined if len(varying(field)) == 1]
    kept: list[Field] = []
    for field in joined:
        summed = {axis for axis in varying(field) if every[axis] not in out}
        alone = {axis for axis in summed if sum(every[axis] in names for names in letters) == 1}
        if alone:
            run.labels.freeze(field, f"{operator_name(node)} sums over its channels")
        if summed != varying(field):
            kept.extend(run.labels.mix([field], summed, f"{operator_name(node)} sums over its channels"))
    # Of one example: the first axis of the output is the batch.
    run.costs.append(ProductCost(node.name, math.prod(sizes.values()) // max(sizes[every[0]], 1), tuple(factors)))
    return tuple(field.reshape(field.shape[: len(out)]) for field in kept)


def linear(run: Propagation, node: fx.Node) -> Fields:
    """``(..., in) x (out, in) -> (..., out)``."""
    data, weight = run.operand(data_of(node)[0]), run.operand(weight_of(node))
    if len(weight[1]) == 1:
        return other(run, node)  # type: ignore[no-any-return]
    batch = _letters(len(data[1]) - 1)
    fields = contract(run, node, (f"{batch}y", "zy"), (data, weight), f"{batch}z")
    why = "it has one channel" if weight[1][0] == 1 else f"the weight of {operator_name(node)} has a fixed size"
    note_outputs(run, node, run.vector_or_fixed(weight, 0, why))
    return with_bias(run, node, fields, (*data[1][:-1], weight[1][0]))


def matrices(run: Propagation, node: fx.Node) -> Fields:
    """``(..., m, k) x (..., k, n) -> (..., m, n)``."""
    value = run.value(node)
    row = operator_of(node)
    first, second = run.operand(data_of(node)[0]), run.operand(data_of(node)[-1] if not row.weight else weight_of(node))
    if min(len(first[1]), len(second[1])) < 2 or row.input_axis is None:
        return other(run, node)  # type: ignore[no-any-return]
    batch = _letters(value.dim() - 2)
    left, right = batch[len(batch) - len(first[1]) + 2 :], batch[len(batch) - len(second[1]) + 2 :]
    fields = contract(run, node, (f"{left}xy", f"{right}yz"), (first, second), f"{batch}xz")
    if run.names(weight_of(node)):
        note_outputs(run, node, run.vector(second, -1))
    return with_bias(run, node, fields, tuple(value.shape))


def einsum(run: Propagation, node: fx.Node) -> Fields:
    """Any product in letters."""
    equation, given = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
    left, arrow, out = equation.partition("->")
    letters = left.split(",")
    if not arrow or "." in equation or any(len(set(each)) < len(each) for each in letters):
        return other(run, node)  # type: ignore[no-any-return]
    for each, names in zip(given, letters, strict=True):
        alone = [axis for axis, letter in enumerate(names) if letter in out and left.count(letter) == 1]
        if run.names(each) and alone:
            run.outputs += [
                (name, labels)
                for name in run.names(each)
                if (labels := run.vector(run.operand(each), alone[-1])) is not None
            ]
    return contract(run, node, letters, [run.operand(each) for each in given], out)


def attend(run: Propagation, node: fx.Node) -> Fields:
    """``softmax(q k^T) v``; each head is removed as a whole, as its scores are one table."""
    query, key, of_values = (run.operand(each) for each in data_of(node))
    heads = query[1][-3] if len(query[1]) > 2 else 1
    key, of_values = (_repeated_heads(each, heads) for each in (key, of_values))
    batch = _letters(len(query[1]) - 2)
    scores = contract(run, node, (f"{batch}xy", f"{batch}zy"), (query, key), f"{batch}xz")
    shape = (*query[1][:-1], key[1][-2])
    mask = argument(node, "attn_mask")
    if mask is not None:
        scores = run.labels.join([(scores, shape), aligned(run.operand(mask), len(shape))], "attention masks it")
    scores = run.labels.mix(scores, [len(shape) - 1], "attention weighs it")
    return contract(run, node, (f"{batch}xz", f"{batch}zv"), ((scores, shape), of_values), f"{batch}xv")


def other(run: Propagation, node: fx.Node) -> Any:
    """Any other operator: what it reads stays as it is."""
    value = run.value(node)
    for read in node.all_input_nodes:
        fields = run.fields.get(read, ())
        for each in fields if fields and isinstance(fields[0], tuple) else (fields,):
            run.freeze([(each, ())], f"{operator_name(node)} reads its channels, and nothing is known of how")
    return tuple(() for _ in value) if isinstance(value, tuple | list) else ()


def aligned(operand: Operand, rank: int) -> Operand:
    """Return an operand with axes of size 1 in front, as broadcasting adds them."""
    fields, shape = operand
    more = rank - len(shape)
    return tuple(each.reshape((1,) * more + each.shape) for each in fields), (1,) * more + shape


def with_bias(run: Propagation, node: fx.Node, fields: Fields, shape: tuple[int, ...], axis: int = -1) -> Fields:
    """Return the fields of a product's output with its bias, if it has one, along ``axis``."""
    bias = bias_of(node)
    if not isinstance(bias, fx.Node):
        return fields
    given, own = run.operand(bias)
    if len(own) == 1:
        given = tuple(along(each.reshape(-1), axis, len(shape)) for each in given)
        own = tuple(own[0] if each == axis % len(shape) else 1 for each in range(len(shape)))
    return run.labels.join(
        [(fields, shape), aligned((given, own), len(shape))], f"{operator_name(node)} adds a bias to it"
    )


def note_outputs(run: Propagation, node: fx.Node, labels: torch.Tensor | None) -> None:
    """Remember the output channels of a product of data and a parameter."""
    if labels is not None:
        run.outputs += [(name, labels) for name in run.names(weight_of(node))]


def _repeated_heads(operand: Operand, heads: int) -> Operand:
    fields, shape = operand
    if len(shape) < 3 or shape[-3] == heads:
        return operand
    times = heads // shape[-3]
    wide = (*shape[:-3], heads, *shape[-2:])
    return tuple(each.repeat_interleave(times, -3) if each.shape[-3] > 1 else each for each in fields), wide


def _letters(count: int) -> str:
    return "abcdefghijklmnopqrstu"[:count]


def _placed(field: Field, names: str, every: str) -> Field:
    order = sorted(range(len(names)), key=lambda axis: every.index(names[axis]))
    moved = field.permute(order)
    sizes = {names[axis]: moved.shape[place] for place, axis in enumerate(order)}
    return moved.reshape([sizes.get(letter, 1) for letter in every])


def _shape(shape: Sequence[int], names: str, every: str) -> tuple[int, ...]:
    sizes = dict(zip(names, shape, strict=True))
    return tuple(sizes.get(letter, 1) for letter in every)


def operator_name(node: fx.Node) -> str:
    """Return the plain name of a node's operator: ``conv2d``."""
    return str(getattr(node.target, "_opname", node.name)).strip("_")
