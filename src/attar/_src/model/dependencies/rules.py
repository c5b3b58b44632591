"""The rule of every operator: how the fields of its output follow from those of its inputs.

Rules follow from facts of the operator's row (``core.operators``), so that a new operator is a row, not a rule.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from attar._src.model.dependencies.keep_channels import reads_kept
from attar._src.model.dependencies.labels import FILLED, FIXED, Field, Fields, Operand, along, varying
from attar._src.model.dependencies.layers import cell, convolution, embedding, recurrent
from attar._src.model.dependencies.products import aligned, attend, einsum, linear, matrices, operator_name, other
from attar._src.model.dependencies.propagation import ChannelRule, Propagation
from attar._src.model.operators import argument, aten, data_of, operator_of

_OF_KIND: Mapping[str, ChannelRule] = {
    "product": matrices,
    "recurrent": recurrent,
    "embedding": embedding,
    "attention": attend,
}


def rule_of(node: fx.Node) -> ChannelRule:
    """Return the rule of the operator that a node calls."""
    row = operator_of(node)
    if node.target is operator.getitem:
        return _entry
    if node.target in _OF_OPERATOR:
        return _OF_OPERATOR[node.target]
    if row.kind == "layer":
        return convolution if row.groups else linear
    if row.kind in _OF_KIND:
        return _OF_KIND[row.kind]
    if row.mixes:
        return _mixed
    if row.cuts:
        return _cut
    if row.joins:
        return _concatenated
    if row.selects:
        return _selected
    if row.elementwise or row.identity or row.vectors or torch.Tag.pointwise in getattr(node.target, "tags", ()):
        return elementwise
    if row.kind == "move":
        return _moved
    return _created if row.creates else other


def elementwise(run: Propagation, node: fx.Node) -> Fields:
    """Operators of each element alone, of vectors with a number for each channel, and of sums over neither."""
    value = run.value(node)
    row, rank = operator_of(node), value.dim()
    vectors = [argument(node, name) for name in row.vectors]
    operands = [aligned(run.operand(each), rank) for each in node.all_input_nodes if each not in vectors]
    operands += [_vector(run, each, row.channel_axis, rank) for each in vectors if isinstance(each, fx.Node)]
    return run.labels.join(operands, f"{operator_name(node)} combines it")


def _vector(run: Propagation, node: fx.Node, axis: int, rank: int) -> Operand:
    fields, shape = run.operand(node)
    if len(shape) != 1:
        return aligned((fields, shape), rank)
    sizes = tuple(shape[0] if each == axis % rank else 1 for each in range(rank))
    return tuple(along(field.reshape(-1), axis, rank) for field in fields), sizes


def _mixed(run: Propagation, node: fx.Node) -> Any:
    """Operators that compute along axes: sums, norms, softmax, pooling."""
    value = run.value(node)
    row = operator_of(node)
    fields, shape = run.operand(data_of(node)[0])
    rank, why = len(shape), f"{operator_name(node)} computes over its channels"
    if row.mixes == "num_groups":
        groups = argument(node, "num_groups")
        labels = run.vector_or_fixed((fields, shape), 1, why).reshape(groups, -1)
        run.labels.unite(labels, labels[:, :1], why, same_tensor=True)
        run.counts[node, "num_groups"] = labels[:, 0]
        return elementwise(run, node)
    if row.mixes == "spatial":
        axes = [*range(rank - (1 if rank < 3 else rank - 2), rank)]
    elif row.mixes == "normalized_shape":
        axes = [*range(rank - len(argument(node, "normalized_shape")), rank)]
    else:
        given = argument(node, row.mixes)
        axes = [*range(rank)] if given is None or given == [] else [given] if isinstance(given, int) else list(given)
    axes = [axis % rank for axis in axes]
    left = run.labels.mix(fields, axes, why)
    if row.mixes == "normalized_shape":
        run.freeze([run.operand(each) for each in node.all_input_nodes[1:]], why)
    if row.vectors:
        operands = [_vector(run, each, row.channel_axis, rank) for each in node.all_input_nodes[1:]]
        left = run.labels.join([(left, shape), *operands], f"{operator_name(node)} combines it")
    outputs = [_without(left, axes, each) for each in (value if isinstance(value, tuple | list) else [value])]
    return tuple(outputs) if isinstance(value, tuple | list) else outputs[0]


def _without(fields: Fields, axes: Sequence[int], value: torch.Tensor) -> Fields:
    """Return fields of a result that may lack the axes that were computed over."""
    if not fields or fields[0].dim() == value.dim():
        return fields
    return tuple(field.squeeze(tuple(axes)) for field in fields)


def _moved(run: Propagation, node: fx.Node) -> Fields:
    """Moves: they are done to the labels themselves."""
    data = node.all_input_nodes[0]
    fields, shape = run.operand(data)
    return run.filled_fields(node, [_done(run, node, {data: field.expand(shape)}) for field in fields])


def _done(run: Propagation, node: fx.Node, instead: Mapping[fx.Node, Any]) -> Any:
    """Return what a node makes of labels instead of values; what it fills in is FILLED."""
    fills = dict.fromkeys(operator_of(node).fills, FILLED)
    names = [each.name for each in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {name: fills.get(name, argument(node, name)) for name in names}

    def labels_of(each: Any) -> Any:
        if not isinstance(each, fx.Node):
            return each
        return instead[each].contiguous() if each in instead else run.value(each)

    args, kwargs = [], {}
    for each in node.target._schema.arguments:  # type: ignore[union-attr]
        made = fx.node.map_aggregate(given[each.name], labels_of)
        if each.kwarg_only:
            kwargs[each.name] = made
        else:
            args.append(made)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _cut(run: Propagation, node: fx.Node) -> Any:
    """Parts at fixed positions along an axis.

    The parts of a whole cut into equal ones lose the same channels. What lies before the end of any other part stays,
    because its positions are numbers of the program.
    """
    value = run.value(node)
    data, dim = argument(node, "self"), argument(node, operator_of(node).cuts)
    fields, shape = run.operand(data)
    dim %= len(shape)
    places = _done(run, node, {data: along(torch.arange(shape[dim]), dim, len(shape)).expand(shape)})
    taken = [each.reshape(-1).unique() for each in (places if isinstance(places, tuple | list) else [places])]
    why = f"{operator_name(node)} takes parts at fixed positions"
    for field in [field for field in fields if dim in varying(field)]:
        for part in taken:
            _keep_place(run, field, dim, part, why)
    several = isinstance(value, tuple | list)
    made = [_done(run, node, {data: field.expand(shape)}) for field in fields]
    if several:
        return tuple(run.labels.simplified([each[index] for each in made]) for index in range(len(value)))
    return run.labels.simplified(made)


def _keep_place(run: Propagation, field: Field, dim: int, part: torch.Tensor, why: str) -> None:
    size, first, last, width = field.shape[dim], int(part[0]), int(part[-1]), len(part)
    if width == size:
        return
    if last - first + 1 == width and size % width == 0 and first % width == 0:
        _unite_parts(run, field, dim, size // width, why)
    else:
        # A part up to the end has as many channels as are left.
        end = first if last == size - 1 and width == size - first else last + 1
        if varying(field) == {dim}:
            run.labels.freeze(field.narrow(dim, 0, end), why)
        else:
            run.labels.fix(field, [dim], why)


def _unite_parts(run: Propagation, field: Field, dim: int, parts: int, why: str) -> None:
    """Let equal parts along an axis lose the same channels."""
    folded = field.unflatten(dim, (parts, field.shape[dim] // parts))
    run.labels.unite(folded, folded.narrow(dim, 0, 1), why, same_tensor=True)


def _shuffled(run: Propagation, node: fx.Node) -> Fields:
    """``channel_shuffle``: channels of several groups take turns."""
    data, groups = node.all_input_nodes[0], int(str(node.args[1]))
    for field in run.operand(data)[0]:
        if 1 in varying(field):
            _unite_parts(run, field, 1, groups, "channel_shuffle divides its channels")
    return _moved(run, node)


def _weight_norm(run: Propagation, node: fx.Node) -> Fields:
    """``g v / |v|``, with a norm for each index of one axis."""
    value = run.value(node)
    v, g = (run.operand(argument(node, name)) for name in ("v", "g"))
    axis = argument(node, "dim") % value.dim()
    left = run.labels.mix(v[0], [each for each in range(value.dim()) if each != axis], "weight_norm computes over it")
    return run.labels.join([(left, v[1]), g], "weight_norm scales it")


def _concatenated(run: Propagation, node: fx.Node) -> Fields:
    """``cat`` and ``stack``: labels are joined along other axes, and follow each other along the axis."""
    value = run.value(node)
    inputs = list(argument(node, "tensors"))
    operands = [run.operand(each) for each in inputs]
    dim, rank = argument(node, "dim"), value.dim()
    new = len(operands[0][1]) < rank
    dim %= rank
    if new:
        operands = [(tuple(f.unsqueeze(dim) for f in fields), (*s[:dim], 1, *s[dim:])) for fields, s in operands]
    beside = [(tuple(f for f in fields if dim not in varying(f)), shape) for fields, shape in operands]
    passing = run.labels.join(beside, f"{operator_name(node)} joins it")
    parts = []
    for fields, shape in operands:
        own = [field for field in fields if dim in varying(field)]
        run.freeze([(tuple(own[1:]), shape)], f"{operator_name(node)} joins it")
        parts.append((own[0] if own else torch.full((1,) * rank, FIXED), shape))
    if not any(dim in varying(field) for field, _ in parts):
        return passing
    together = torch.cat([field.expand(shape) for field, shape in parts], dim)
    return run.labels.simplified([*passing, together])


def _selected(run: Propagation, node: fx.Node) -> Fields:
    """Elements at places that are values of the program: along these axes all stay."""
    data = argument(node, "self")
    fields, shape = run.operand(data)
    names = [each.name for each in node.target._schema.arguments]  # type: ignore[union-attr]
    if "dim" in names:
        axes = {argument(node, "dim") % len(shape)}
    else:
        axes = {axis for axis, each in enumerate(argument(node, "indices")) if each is not None}
    left = _fixed(run, fields, () if is_kept(node) else axes, f"{operator_name(node)} takes elements at fixed places")
    return run.labels.simplified([_done(run, node, {data: field.expand(shape)}) for field in left])


def _fixed(run: Propagation, fields: Fields, axes: Collection[int], why: str) -> list[Field]:
    """Return fields that do not depend on axes whose sizes stay."""
    fixed = [each for field in fields for each in run.labels.fix(field, axes, why)]
    return [field for field in fixed if not varying(field) & set(axes)]


def _gathered(run: Propagation, node: fx.Node) -> Fields:
    """``gather``: elements along an axis at places that are data."""
    value = run.value(node)
    fields, shape = run.operand(argument(node, "self"))
    axis = argument(node, "dim") % len(shape)
    left = _fixed(run, fields, [axis], "gather takes elements at places that are data")
    of_places = run.operand(argument(node, "index"))
    return run.labels.join([(tuple(left), tuple(value.shape)), of_places], "gather combines it")


def is_kept(node: fx.Node) -> bool:
    """Whether a node is the hook of a submodule that keeps some of its channels, at places that follow a removal."""
    places = node.args[2] if node.target is aten.index_select.default else None
    return isinstance(places, fx.Node) and places.op == "get_attr" and reads_kept(str(places.target))


def _created(run: Propagation, node: fx.Node) -> Fields:
    """New values: whatever joins them decides."""
    value = run.value(node)
    rank = value.dim()
    return tuple(along(run.labels.new(size), axis, rank) for axis, size in enumerate(value.shape) if size > 1)


def _halves(run: Propagation, node: fx.Node) -> Fields:
    """``glu``: the halves are combined element by element."""
    value = run.value(node)
    fields, shape = run.operand(argument(node, "self"))
    dim = argument(node, "dim") % len(shape)
    parts = [[field.chunk(2, dim) if dim in varying(field) else (field, field) for field in fields]]
    sides = [tuple(part[side] for part in parts[0]) for side in (0, 1)]
    return run.labels.join([(side, tuple(value.shape)) for side in sides], "glu combines it")


def _entry(run: Propagation, node: fx.Node) -> Any:
    """One of several outputs."""
    of, place = node.args
    fields = run.fields[of]  # type: ignore[index]
    return fields[place] if fields else ()


_OF_OPERATOR: Mapping[Any, ChannelRule] = {
    aten.einsum.default: einsum,
    aten.bilinear.default: other,
    aten.glu.default: _halves,
    aten.gather.default: _gathered,
    aten.channel_shuffle.default: _shuffled,
    aten.pixel_unshuffle.default: _moved,
    aten._weight_norm.default: _weight_norm,
    aten.lstm_cell.default: cell,
    aten.gru_cell.default: cell,
    aten.rnn_tanh_cell.default: cell,
    aten.rnn_relu_cell.default: cell,
}
