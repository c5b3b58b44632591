"""Weights of a traced graph: which parameters they are, and the vectors they multiply."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx
from torch.nn import functional

from attar._src.core.errors import SpecError
from attar._src.core.scheme import Granularity, Shape
from attar._src.model.chains.channels import Move, Reading, output_channels
from attar._src.model.chains.constants import constant_nodes, evaluate, is_move
from attar._src.model.operators import (
    arguments,
    aten,
    channel_sizes,
    data_of,
    groups_of,
    is_floating,
    operator_of,
    weight_of,
)

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Weight:
    """A parameter that multiplies data.

    Attributes:
        name: its name in the module.
        role: ``"product"``, ``"recurrent"`` or ``"embedding"``.
        channels: the granularity of one scale for each output channel.
        readers: names of the nodes that multiply by it.
    """

    name: str
    role: str
    channels: Granularity
    readers: tuple[str, ...]


def find_weights(graph: fx.GraphModule) -> dict[str, Weight]:
    """Return the weights of a traced graph by name; biases, norms and tables that are only added are none.

    Moves may lie between a parameter and the product: it may be transposed, cut, or one of several that are joined.
    """
    parameters = dict(graph.named_parameters())
    constant = constant_nodes(graph.graph)
    read: dict[str, list[tuple[fx.Node, str, Reading]]] = defaultdict(list)
    for node in graph.graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and name in parameters and parameters[name].is_floating_point():
            read[name] += _readings(graph, node, tuple(parameters[name].shape), constant)
    return {name: _weight(name, tuple(parameters[name].shape), found) for name, found in read.items() if found}


def _weight(name: str, shape: Shape, found: Sequence[tuple[fx.Node, str, Reading]]) -> Weight:
    roles = [role for _, role, _ in found]
    # A product outranks the embedding its weight is tied to: integers could serve it.
    role = next((each for each in roles if each != "embedding"), roles[0])
    readings = tuple(dict.fromkeys(reading for _, each, reading in found if each == role))
    return Weight(name, role, output_channels(shape, readings), tuple(reader.name for reader, _, _ in found))


def _readings(
    graph: fx.GraphModule, parameter: fx.Node, shape: Shape, constant: Collection[fx.Node]
) -> list[tuple[fx.Node, str, Reading]]:
    """Return the nodes that multiply by a parameter, what it is to each, and how each reads it."""
    found: list[tuple[fx.Node, str, Reading]] = []
    todo: list[tuple[fx.Node, tuple[Move, ...], Shape]] = [(parameter, (), shape)]
    while todo:
        source, moves, shape = todo.pop(0)
        for user in source.users:
            role = operator_of(user).role or ""
            sizes = channel_sizes(user, source, shape) if role and len(shape) > 1 else None
            if sizes is not None:
                found.append((user, role, Reading(moves, sizes)))
            elif is_move(user) and (user in constant or user.target is aten.expand.default):
                others = [each for each in user.all_input_nodes if each is not source and each in constant]
                move = Move.of(user, source, evaluate(graph, others))
                lengths: Any = getattr(user.meta.get("val"), "shape", ())
                todo.append((user, (*moves, move), tuple(each if isinstance(each, int) else 1 for each in lengths)))
    return found


@dataclass(frozen=True)
class Window:
    """How a layer cuts its input into the vectors that its weight multiplies.

    A linear layer ``(out, in)`` multiplies one vector of length ``in`` at each position of its input ``(..., in)``; a
    convolution ``(out, in / groups, *kernel)`` multiplies one of length ``in / groups * prod(kernel)`` in each of its
    groups at each position of its output. Example: 3x3 kernels, 8 channels in 2 groups -> 2 groups, length 36.

    Attributes:
        groups: number of vectors at each position, each for its own rows of the weight.
        length: of a vector.
        kernel, stride, padding, dilation: for each spatial axis of a convolution, else empty.
        turned: whether the weight is stored as ``(..., in, out)``.
    """

    groups: int
    length: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    turned: bool = False

    @property
    def axis(self) -> int:
        """The axis of the input's channels, counted from the last: -1 of ``(..., in)``, -3 of ``(N, C, H, W)``."""
        return -1 - len(self.kernel)

    @property
    def channels(self) -> int:
        """The number of channels of the input."""
        return self.length // prod(self.kernel) * self.groups if self.kernel else self.length

    def vectors(self, x: torch.Tensor, most: int | None = None, seed: int = 0) -> torch.Tensor:
        """Return the vectors of an input, ``(groups, positions, length)``, each in the order of a row of the weight.

        Args:
            x: the input.
            most: how many of a convolution's positions are drawn, if it has more; None for all.
            seed: of what is drawn.
        """
        if not self.kernel:
            return x.reshape(self.groups, -1, self.length)
        axes = len(self.kernel)
        x = x if x.dim() == axes + 2 else x.unsqueeze(0)
        x = functional.pad(x, [pad for each in reversed(self.padding) for pad in (each, each)])
        for axis, (size, stride, dilation) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True), 2):
            x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        shape = (len(x), *x.shape[2 : 2 + axes])
        if most is not None and prod(shape) > most:
            drawn = torch.randperm(prod(shape), generator=torch.Generator().manual_seed(seed))[:most].sort().values
            x = x.movedim(1, 1 + axes)[torch.unravel_index(drawn.to(x.device), shape)]
            return x.reshape(most, self.groups, self.length).movedim(1, 0)
        # (N, C, *out, *kernel) -> (groups, N, *out, C / groups, *kernel)
        x = x.unflatten(1, (self.groups, -1)).movedim(1, 0).movedim(2, 2 + axes)
        return x.flatten(1, 1 + axes).flatten(2)

    def rows(self, weight: NDArray[_T]) -> NDArray[_T]:
        """Return an array of a weight's shape with a row for each output: ``(groups, out / groups, length)``."""
        return (weight.swapaxes(-1, -2) if self.turned else weight).reshape(self.groups, -1, self.length)

    def weight(self, rows: NDArray[_T], shape: tuple[int, ...]) -> NDArray[_T]:
        """Return the array of ``shape`` with these rows: the inverse of :meth:`rows`."""
        if not self.turned:
            return rows.reshape(shape)
        return np.ascontiguousarray(rows.reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2))


@dataclass(frozen=True)
class LayerInput:
    """What the weight of a layer multiplies.

    Attributes:
        values: names of values of the graph, one for each layer that shares the weight.
        window: how the layers read them.
    """

    values: tuple[str, ...]
    window: Window


def layer_input(graph: fx.GraphModule, layer: fx.Node) -> LayerInput | None:
    """Return what a convolution or matrix product with a weight multiplies by it, None for any other node.

    None, too, for transposed convolutions, whose outputs overlap, and if the data are themselves a parameter.
    """
    operator = operator_of(layer)
    if operator.kind not in ("layer", "product") or 0 not in operator.output_axes:
        return None
    data = data_of(layer)[0]
    shape, flipped = _parameter(graph, weight_of(layer))
    if not shape or not isinstance(data, fx.Node) or data.op == "get_attr" or not is_floating(data):
        return None
    if operator.groups:
        return LayerInput((data.name,), _convolution(layer, shape))
    if len(shape) != (3 if layer.target is aten.bmm.default else 2):
        return None
    turned = flipped != (operator.kind == "product")
    return LayerInput((data.name,), Window(prod(shape[:-2]), shape[-2 if turned else -1], turned=turned))


def weight_input(
    graph: fx.GraphModule, weight: Weight | None, exposed: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> LayerInput:
    """Return what a weight of ``graph`` multiplies; ``weight`` is None for a parameter that multiplies nothing.

    Of a table that is looked up and also multiplies, what it multiplies.

    Args:
        exposed: (recurrent layer, weight) -> value, of a graph that
            :func:`~attar._src.model.recurrent.inputs.expose_inputs` returned.

    Raises:
        SpecError: it multiplies nothing, or not always one floating-point value in the same way: it is an embedding, or
            read by a transposed convolution.
    """
    if weight is None:
        raise SpecError("it multiplies no value")
    nodes = {node.name: node for node in graph.graph.nodes}
    reads = []
    products = [name for name in weight.readers if operator_of(nodes[name]).role != "embedding"]
    for reader in products or weight.readers:
        if (value := exposed.get((reader, weight.name))) is not None:
            reads.append(LayerInput((value,), Window(1, int(attrgetter(weight.name)(graph).shape[1]))))
            continue
        read = layer_input(graph, nodes[reader])
        if read is None:
            turned = operator_of(nodes[reader]).groups
            what = "a transposed convolution" if turned else "neither a linear layer nor a convolution"
            raise SpecError(f"it is read by {reader!r} ({nodes[reader].target}), {what}")
        reads.append(read)
    if len({read.window for read in reads}) > 1:
        raise SpecError(f"{', '.join(map(repr, weight.readers))} read it in different ways")
    return LayerInput(tuple(dict.fromkeys(name for read in reads for name in read.values)), reads[0].window)


def _parameter(graph: fx.GraphModule, node: Any) -> tuple[tuple[int, ...], bool]:
    """Return the shape of the parameter that a node is or transposes, and whether it does; () if neither."""
    if not isinstance(node, fx.Node):
        return (), False
    if node.op == "get_attr":
        return tuple(attrgetter(str(node.target))(graph).shape), False
    shape, _ = _parameter(graph, node.args[0]) if operator_of(node).flips else ((), False)
    return shape if len(shape) == 2 else (), True


def _convolution(layer: fx.Node, shape: tuple[int, ...]) -> Window:
    kernel = shape[2:]

    def each(given: Any) -> tuple[int, ...]:
        sizes = (given,) if isinstance(given, int) else tuple(given)
        return sizes * len(kernel) if len(sizes) == 1 else sizes

    stride, padding, dilation = map(each, arguments(layer, "stride padding dilation"))
    return Window(groups_of(layer), prod(shape[1:]), kernel, stride, padding, dilation)
