"""Sites: the places in a traced graph where activations can be quantized, found by structure.

A value is a site where an integer kernel would read it:

- the data inputs of products (convolutions, linear layers, matrix products), and the outputs of convolutions;
- the inputs of additions, means and average pools whose own output is a site (both sides of a residual addition, also
  through the activation that follows it), so that they run in integers too;
- what a value is made of by moving elements only (slices, padding, pooling by maximum, reshapes): the same grid holds
  on both sides, so these form one group with one scale.

An activation function directly behind a product or an addition fuses into it, so the site is behind the function.

The values of a site are those that the ONNX graph has too; where the exporter computes something in another way than
the trace, so that a value to be rounded is not there, there is no site.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

#: Products with the positions of the inputs that are data, where they are not parameters.
PRODUCTS: dict[Any, tuple[int, ...]] = {
    aten.conv1d.default: (0,),
    aten.conv2d.default: (0,),
    aten.conv3d.default: (0,),
    aten.convolution.default: (0,),
    aten.conv_transpose1d.default: (0,),
    aten.conv_transpose2d.input: (0,),
    aten.conv_transpose3d.input: (0,),
    aten.linear.default: (0,),
    aten.addmm.default: (1,),
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.matmul.default: (0, 1),
}
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
#: Operators whose output has only elements of their inputs (or zeros), which every grid here holds exactly.
_MOVES = frozenset(
    {
        aten.view.default,
        aten._unsafe_view.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten.unflatten.int,
        aten.transpose.int,
        aten.t.default,
        aten.permute.default,
        aten.slice.Tensor,
        aten.select.int,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.unsqueeze.default,
        aten.expand.default,
        aten.repeat.default,
        aten.flip.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.alias.default,
        aten.max_pool1d.default,
        aten.max_pool2d.default,
        aten.max_pool3d.default,
        aten.cat.default,
        aten.stack.default,
        aten.constant_pad_nd.default,
        aten.pad.default,
        aten.pixel_shuffle.default,
        aten.where.self,
    }
)
_PASSES = frozenset(
    {
        aten.add.Tensor,
        aten.mean.dim,
        aten.avg_pool1d.default,
        aten.avg_pool2d.default,
        aten.avg_pool3d.default,
        aten.adaptive_avg_pool1d.default,
        aten.adaptive_avg_pool2d.default,
        aten._adaptive_avg_pool2d.default,
    }
)
#: Activation functions that integer kernels take in by the range of their output.
_FUSED = frozenset(
    {aten.relu.default, aten.relu_.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default}
)


@dataclass(frozen=True)
class Site:
    """Values that share one grid.

    Attributes:
        values: node names (and so ONNX value names), in graph order.
        sources: those among them that are computed rather than moved: what is observed and rounded.
    """

    values: tuple[str, ...]
    sources: tuple[str, ...]


def find_sites(
    graph: fx.GraphModule, deployed: Collection[str], *, skip: Callable[[fx.Node], bool] = lambda _: False
) -> tuple[Site, ...]:
    """Return the sites of a traced graph.

    Args:
        graph: a traced graph in evaluation mode.
        deployed: the names of the values that the ONNX graph has.
        skip: products whose inputs need not be quantized (layers kept in floating point).
    """
    order = {node: position for position, node in enumerate(graph.graph.nodes)}
    activations = _activations(graph)
    group: dict[fx.Node, fx.Node] = {}

    def find(node: fx.Node) -> fx.Node:
        while group[node] is not node:
            node = group[node]
        return node

    products = [n for n in graph.graph.nodes if n.op == "call_function" and n.target in PRODUCTS and not skip(n)]
    todo = [value for node in products for value in _at(node, PRODUCTS[node.target])]
    todo += [value for node in products if node.target in _CONVOLUTIONS for value in _behind(node)]
    while todo:
        value = todo.pop()
        if value in group or value not in activations:
            continue
        group[value] = value
        if value.op != "call_function":
            continue
        if value.target in _MOVES and _keeps_grid(value):
            todo.extend(value.all_input_nodes)
        else:
            behind = value.args[0] if value.target in _FUSED else value
            if isinstance(behind, fx.Node) and behind.target in _PASSES and _only_activations(behind, activations):
                todo.extend(behind.all_input_nodes)
    for value in group:
        if value.op == "call_function" and value.target in _MOVES and _keeps_grid(value):
            for source in value.all_input_nodes:
                if source in group:
                    first, second = sorted((find(value), find(source)), key=order.__getitem__)
                    group[second] = first
    members: dict[fx.Node, list[fx.Node]] = {}
    for value in sorted(group, key=order.__getitem__):
        members.setdefault(find(value), []).append(value)
    sites = [Site(_names(values), _names(v for v in values if not _is_moved(v, group))) for values in members.values()]
    return tuple(
        Site(tuple(name for name in site.values if name in deployed), site.sources)
        for site in sites
        if all(name in deployed for name in site.sources)
    )


def _at(node: fx.Node, positions: tuple[int, ...]) -> list[fx.Node]:
    return [node.args[i] for i in positions if i < len(node.args) and isinstance(node.args[i], fx.Node)]  # type: ignore[misc]


def _behind(convolution: fx.Node) -> list[fx.Node]:
    """Return the value an integer convolution would write: its own, or that of the activation that fuses into it."""
    users = list(convolution.users)
    out = users[0] if len(users) == 1 and users[0].target in _FUSED else convolution
    # What leaves the graph is not rounded.
    return [] if any(user.op == "output" for user in out.users) else [out]


def _activations(graph: fx.GraphModule) -> set[fx.Node]:
    """Return the floating values that depend on an input: no parameters, and nothing made of parameters alone."""
    flowing: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or (node.op == "call_function" and not flowing.isdisjoint(node.all_input_nodes)):
            flowing.add(node)
    return {node for node in flowing if _is_floating(node.meta.get("val"))}


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _only_activations(node: fx.Node, activations: set[fx.Node]) -> bool:
    """True where every operand is a floating activation: no parameter, no scalar, no rescaling."""
    operands = node.args[:2] if node.target is aten.add.Tensor else node.args[:1]
    return not node.kwargs and all(isinstance(operand, fx.Node) and operand in activations for operand in operands)


def _keeps_grid(node: fx.Node) -> bool:
    """Padding and choosing keep the grid where they put in zeros, which every grid holds exactly."""
    if node.target is aten.where.self:
        return any(_is_zero(branch) for branch in node.args[1:])
    if node.target not in (aten.constant_pad_nd.default, aten.pad.default):
        return True
    mode = node.args[2] if node.target is aten.pad.default and len(node.args) > 2 else "constant"
    value = node.args[-1] if len(node.args) > (2 if node.target is aten.constant_pad_nd.default else 3) else 0
    return mode == "constant" and value in (0, 0.0, None)


def _is_zero(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.target is aten.scalar_tensor.default and value.args == (0,)


def _is_moved(node: fx.Node, group: dict[fx.Node, fx.Node]) -> bool:
    """True where every element of the value comes from another value of the group."""
    moves = node.op == "call_function" and node.target in _MOVES and _keeps_grid(node)
    # A parameter that is joined to activations is on no grid: the joint value is rounded itself.
    inputs = [n for n in node.all_input_nodes if not _is_zero(n)]
    joined = [n for n in inputs if n.op == "get_attr" or _is_floating(n.meta.get("val"))]
    return moves and all(source in group for source in joined)


def _names(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    return tuple(node.name for node in nodes)
