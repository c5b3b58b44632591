"""Weights of a traced graph: which parameters they are, and the vectors they multiply."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx
from torch.nn import functional

from attar._src.core.errors import SpecError
from attar._src.model.operators import arguments, aten, data_of, groups_of, operator_of, output_axes, weight_of

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Weight:
    """A parameter that multiplies data.

    Attributes:
        name: its name in the module.
        role: ``"product"``, ``"recurrent"`` or ``"embedding"``.
        axis: the axis of its output channels, the last where there are several.
        readers: names of the nodes that read it.
    """

    name: str
    role: str
    axis: int
    readers: tuple[str, ...]


def find_weights(graph: fx.GraphModule) -> dict[str, Weight]:
    """Return the weights of a traced graph by name; biases, norms and tables that are only added are none."""
    parameters = dict(graph.named_parameters())
    found: dict[str, Weight] = {}
    for node in graph.graph.nodes:
        if node.op != "get_attr" or parameters.get(str(node.target), torch.empty(0)).dim() < 2:
            continue
        name, shape = str(node.target), parameters[str(node.target)].shape
        # A matrix may be turned over on its way to the product.
        flips = [user for user in node.users if len(shape) == 2 and (row := operator_of(user)) and row.flips]
        readers = [(node, user) for user in node.users] + [(flip, user) for flip in flips for user in flip.users]
        for source, user in readers:
            role = _role(user, source)
            if role is None:
                continue
            axis = output_axes(user, len(shape))[-1]
            axis = 1 - axis if source is not node else axis
            known = found.get(name)
            # A product outranks the embedding its weight is tied to: it is what integers could serve.
            if known is None or (known.role == "embedding" and role == "product"):
                found[name] = Weight(name, role, axis, (*(known.readers if known else ()), user.name))
            else:
                found[name] = Weight(known.name, known.role, known.axis, (*known.readers, user.name))
    return found


def _role(user: fx.Node, weight: fx.Node) -> str | None:
    operator = operator_of(user)
    # A recurrent operator reads its weights as a list.
    reads = operator is not None and (operator.kind == "recurrent" or weight_of(user) is weight)
    return operator.role if operator is not None and reads else None


@dataclass(frozen=True)
class Window:
    """How a layer cuts its input into the vectors that its weight multiplies.

    A linear layer ``(out, in)`` multiplies one vector of length ``in`` at each position of its input ``(..., in)``; a
    convolution ``(out, in / groups, *kernel)`` multiplies one of length ``in / groups * prod(kernel)`` in each of its
    groups at each position of its output. Example: 3x3 kernels, 8 channels in 2 groups -> 2 groups, length 36.

    Attributes:
        groups: how many vectors there are at each position, each for its own rows of the weight.
        length: of a vector.
        kernel, stride, padding, dilation: for each spatial axis of a convolution, empty elsewhere.
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
        """The length of that axis."""
        return self.length // prod(self.kernel) * self.groups if self.kernel else self.length

    def vectors(self, x: torch.Tensor) -> torch.Tensor:
        """Return the vectors of an input, ``(groups, positions, length)``, each in the order of a row of the weight."""
        if not self.kernel:
            return x.reshape(self.groups, -1, self.length)
        axes = len(self.kernel)
        x = x if x.dim() == axes + 2 else x.unsqueeze(0)
        x = functional.pad(x, [pad for each in reversed(self.padding) for pad in (each, each)])
        for axis, (size, stride, dilation) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True), 2):
            x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        # (N, C, *out, *kernel) -> (groups, N, *out, C / groups, *kernel)
        x = x.unflatten(1, (self.groups, -1)).movedim(1, 0).movedim(2, 2 + axes)
        return x.flatten(1, 1 + axes).flatten(2)

    def rows(self, weight: NDArray[_T]) -> NDArray[_T]:
        """Return a weight, or an array of its shape, with a row for each output: ``(groups, out / groups, length)``."""
        return (weight.swapaxes(-1, -2) if self.turned else weight).reshape(self.groups, -1, self.length)

    def weight(self, rows: NDArray[_T], shape: tuple[int, ...]) -> NDArray[_T]:
        """Return the array of ``shape`` whose rows these are: the inverse of :meth:`rows`."""
        if not self.turned:
            return rows.reshape(shape)
        return np.ascontiguousarray(rows.reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2))


@dataclass(frozen=True)
class LayerInput:
    """What the weight of a layer multiplies.

    Attributes:
        values: names of the values of the graph; several where several layers share the weight.
        window: how the layers read them.
    """

    values: tuple[str, ...]
    window: Window


def layer_input(graph: fx.GraphModule, layer: fx.Node) -> LayerInput | None:
    """Return what a convolution or matrix product with a weight multiplies by it, None for any other node.

    None, too, for transposed convolutions, whose outputs overlap, and where the data are themselves a parameter.
    """
    operator = operator_of(layer)
    if operator is None or operator.kind not in ("layer", "product") or 0 not in operator.output_axes:
        return None
    data = data_of(layer)[0]
    shape, flipped = _parameter(graph, weight_of(layer))
    if not shape or not isinstance(data, fx.Node) or data.op == "get_attr" or not _is_floating(data):
        return None
    if operator.groups:
        return LayerInput((data.name,), _convolution(layer, shape))
    if len(shape) != (3 if layer.target is aten.bmm.default else 2):
        return None
    turned = flipped != (operator.kind == "product")
    return LayerInput((data.name,), Window(prod(shape[:-2]), shape[-2 if turned else -1], turned=turned))


def weight_input(graph: fx.GraphModule, weight: Weight | None) -> LayerInput:
    """Return what a weight multiplies.

    Args:
        graph: the graph in which the weight was found.
        weight: None for a parameter that multiplies nothing.

    Raises:
        SpecError: it is no weight, or something reads it that multiplies no single floating value by it: a table that
            is looked up, a recurrent layer, a transposed convolution.
    """
    if weight is None:
        raise SpecError("it multiplies no value")
    nodes = {node.name: node for node in graph.graph.nodes}
    found = {reader: layer_input(graph, nodes[reader]) for reader in weight.readers}
    for reader, read in found.items():
        if read is None:
            raise SpecError(
                f"it is read by {reader!r} ({nodes[reader].target}), neither a linear layer nor a convolution"
            )
    reads = [read for read in found.values() if read is not None]
    if len({read.window for read in reads}) > 1:
        raise SpecError(f"{', '.join(map(repr, found))} read it in different ways")
    return LayerInput(tuple(dict.fromkeys(name for read in reads for name in read.values)), reads[0].window)


def _parameter(graph: fx.GraphModule, node: Any) -> tuple[tuple[int, ...], bool]:
    """Return the shape of the parameter that a node is or turns over, and which; () where it is neither."""
    if not isinstance(node, fx.Node):
        return (), False
    if node.op == "get_attr":
        parameter: torch.Tensor = attrgetter(str(node.target))(graph)
        return tuple(parameter.shape), False
    operator = operator_of(node)
    shape, _ = _parameter(graph, node.args[0]) if operator is not None and operator.flips else ((), False)
    return shape if len(shape) == 2 else (), True


def _is_floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _convolution(layer: fx.Node, shape: tuple[int, ...]) -> Window:
    kernel = shape[2:]

    def each(given: Any) -> tuple[int, ...]:
        sizes = (given,) if isinstance(given, int) else tuple(given)
        return sizes * len(kernel) if len(sizes) == 1 else sizes

    stride, padding, dilation = map(each, arguments(layer, "stride padding dilation"))
    return Window(groups_of(layer), prod(shape[1:]), kernel, stride, padding, dilation)
