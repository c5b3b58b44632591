"""Fold batch-norms into the convolution or linear layer before them, and drop what does nothing.

A batch-norm in evaluation mode is y = gamma (x - mean) / sqrt(var + eps) + beta. Where x is the output of a convolution
or linear layer that nothing else reads, and whose weight nothing else uses, that is the same layer with

    weight' = weight * f        bias' = (bias - mean) * f + beta        f = gamma / sqrt(var + eps)

f along the output channel. Elsewhere (an activation or padding between, a shared weight) it stays, with the reason.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from attar._src.model.operators import (
    arguments,
    aten,
    bias_of,
    channel_axis,
    is_batch_norm,
    is_identity,
    is_layer,
    output_axes,
    weight_of,
)

_ARGUMENTS = "input weight bias running_mean running_var training eps"


#: Name of a weight, factor ``(channels,)``, axis of the channels -> why the weight cannot take the factor, or None.
Refusal = Callable[[str, NDArray[np.float64], int], str | None]


@dataclass(frozen=True)
class Folding:
    """What became of each batch-norm.

    Attributes:
        folded: batch-norm -> the layer it went into, or the name of the weight where that is no layer's ``weight``.
        biases: batch-norm -> the name of the bias that holds what it added.
        kept: batch-norm -> why it stays.
        values: node of a layer -> node of the batch-norm whose value it has now.
        factors: weight -> what it was multiplied by, float64 ``(channels,)``, and the axis of the channels.
    """

    folded: dict[str, str] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    factors: dict[str, tuple[NDArray[np.float64], int]] = field(default_factory=dict)


def clean(graph: fx.GraphModule) -> None:
    """Drop nodes that return their input in evaluation mode: dropout, slices of everything."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        everything = node.target is aten.slice.Tensor and _slices_everything(node)
        if everything or is_identity(node):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def fold_batch_norms(graph: fx.GraphModule, refuse: Refusal | None = None) -> Folding:
    """Fold every batch-norm that can be folded exactly; the graph gets parameters of its own where they change.

    Args:
        graph: changed in place.
        refuse: says why a weight cannot take a factor; the batch-norm stays then.

    Returns:
        The names of the batch-norm modules folded, with the layer each went into, and of those kept, with the reason.
    """
    folding = Folding()
    for node in list(graph.graph.nodes):
        if not is_batch_norm(node):
            continue
        source, gamma, beta, mean, var, training, eps = arguments(node, _ARGUMENTS)
        name = _owner(mean) or node.name
        reason = _reason_to_keep(source, (mean, var), training)
        if reason:
            folding.kept[name] = reason
            continue
        weight_node, bias_node = weight_of(source), bias_of(source)
        target, weight = str(weight_node.target), _value(graph, weight_node).double()
        axis = output_axes(source, weight.dim())[-1]
        factor = _factor(graph, gamma, var, eps)
        # Of two batch-norms behind one layer, the weight takes both factors.
        whole = factor.numpy() * folding.factors[target][0] if target in folding.factors else factor.numpy()
        reason = refuse(target, whole, axis) if refuse is not None else None
        if reason:
            folding.kept[name] = reason
            continue
        bias = _value(graph, bias_node).double() if bias_node is not None else torch.zeros_like(factor)
        bias = (bias - _value(graph, mean).double()) * factor
        if beta is not None:
            bias = bias + _value(graph, beta).double()
        form = [1] * weight.dim()
        form[axis] = -1
        layer, _, leaf = target.rpartition(".")
        into = layer if layer and leaf == "weight" else target
        bias_name = str(bias_node.target) if bias_node is not None else _free_name(graph, f"{into}.bias", into)
        _assign(graph, target, weight * factor.reshape(form))
        _assign(graph, bias_name, bias)
        if bias_node is None:
            with graph.graph.inserting_after(weight_node):
                bias_node = graph.graph.get_attr(bias_name)
            source.args = (*source.args[:2], bias_node, *source.args[3:])
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
        folding.folded[name], folding.biases[name] = into, bias_name
        folding.values[source.name] = node.name
        folding.factors[target] = (whole, axis)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    _delete_unused_state(graph)
    graph.recompile()
    return folding


def merge_batch_norms(graph: fx.GraphModule) -> None:
    """Write batch-norms that stay as ``y = f x + (beta - mean f)``: two vectors to store where there were four.

    They stay batch-norms, one kernel each, of mean 0 and variance 1, which are made in the graph. Those that normalise
    by the statistics of each batch, or share their state, are left as they are.

    Args:
        graph: changed in place; it gets parameters of its own where they change.
    """
    for node in list(graph.graph.nodes):
        if not is_batch_norm(node):
            continue
        source, gamma, beta, mean, var, training, momentum, eps, *rest = node.args
        state = [each for each in (gamma, beta, mean, var) if each is not None]
        shared = any(len(found) > 1 or len(found[0].users) > 1 for found in (_readers(graph, each) for each in state))
        if training or mean is None or var is None or shared:
            continue
        factor = _factor(graph, gamma, var, eps)
        shift = -_value(graph, mean).double() * factor
        if beta is not None:
            shift = shift + _value(graph, beta).double()
        owner = _owner(mean)
        names = [
            str(each.target) if each is not None else _free_name(graph, f"{owner}.{leaf}", owner)
            for each, leaf in ((gamma, "weight"), (beta, "bias"))
        ]
        for name, value in zip(names, (factor, shift), strict=True):
            _assign(graph, name, value)
        with graph.graph.inserting_before(node):
            merged = [graph.graph.get_attr(name) for name in names]
            still = [
                graph.graph.call_function(
                    aten.full.default, ([len(factor)], value), {"dtype": torch.float32, "device": torch.device("cpu")}
                )
                for value in (0.0, 1.0)
            ]
        node.args = (source, *merged, *still, training, momentum, 0.0, *rest)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    _delete_unused_state(graph)
    graph.recompile()


def _factor(graph: fx.GraphModule, gamma: fx.Node | None, var: fx.Node, eps: float) -> torch.Tensor:
    """Return ``gamma / sqrt(var + eps)``, float64 ``(channels,)``."""
    factor = torch.rsqrt(_value(graph, var).double() + eps)
    return factor if gamma is None else factor * _value(graph, gamma).double()


def _readers(graph: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Return the nodes that read the state ``node`` reads."""
    return list(graph.graph.find_nodes(op="get_attr", target=node.target))


def _reason_to_keep(source: Any, statistics: tuple[Any, Any], training: Any) -> str | None:
    """Return why this batch-norm cannot be folded, or None if it can."""
    if training or any(value is None for value in statistics):
        return "it normalises by the statistics of each batch"
    if sum(len(n.users) for n in statistics[0].graph.find_nodes(op="get_attr", target=statistics[0].target)) > 1:
        return "it is used more than once"
    if not is_layer(source):
        what = getattr(source.target, "__name__", str(source.target)).split(".")[0]
        return (
            f"{'an input' if source.op == 'placeholder' else what} comes before it, not a convolution or linear layer"
        )
    dim = source.meta["val"].dim()
    if channel_axis(source) % dim != 1:
        return f"the channels of {source.name} are not its output features"
    if len(source.users) > 1:
        return f"the output of {source.name} is read elsewhere too"
    weight, bias = weight_of(source), bias_of(source)
    if weight.op != "get_attr":
        return f"the weight of {source.name} is computed in the graph"
    if sum(1 for user in weight.graph.find_nodes(op="get_attr", target=weight.target) for _ in user.users) > 1:
        return f"the weight {weight.target} is used more than once"
    if bias is not None and len(bias.users) > 1:
        return f"the bias {bias.target} is used more than once"
    if len(output_axes(source, dim)) > 1:
        return "a grouped transposed convolution comes before it"
    return None


def _slices_everything(node: fx.Node) -> bool:
    _, _, start, end, step = list(node.args) + [None, 0, None, None, 1][len(node.args) :]
    return bool(start in (0, None) and step == 1) and (end is None or (isinstance(end, int) and end >= 2**62))


def _owner(node: Any) -> str:
    """Return the name of the module whose state ``node`` reads."""
    return str(node.target).rpartition(".")[0] if isinstance(node, fx.Node) and node.op == "get_attr" else ""


def _free_name(graph: fx.GraphModule, wanted: str, weight: str) -> str:
    """Return ``wanted``, or a name beside the weight's where that is taken or no module can hold it."""
    taken = {name for name, _ in [*graph.named_parameters(), *graph.named_buffers()]}
    owner, _, leaf = wanted.rpartition(".")
    modules = {name for name, _ in graph.named_modules()}
    if owner in modules and wanted not in taken and not hasattr(graph.get_submodule(owner), leaf):
        return wanted
    name = f"{weight}_folded_bias"
    while name in taken:
        name += "_"
    return name


def _value(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    tensor = operator.attrgetter(str(node.target))(graph)
    assert isinstance(tensor, torch.Tensor)
    return tensor.detach()


def _assign(graph: fx.GraphModule, name: str, value: torch.Tensor) -> None:
    """Give the graph a parameter of its own under ``name``; the traced module shares the old one and keeps it."""
    owner, _, leaf = name.rpartition(".")
    module = graph.get_submodule(owner)
    module.register_parameter(leaf, nn.Parameter(value.float(), requires_grad=False))


def _delete_unused_state(graph: fx.GraphModule) -> None:
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [n for n, _ in [*graph.named_parameters(), *graph.named_buffers()] if n not in used]:
        owner, _, leaf = name.rpartition(".")
        delattr(graph.get_submodule(owner), leaf)
