"""Fold batch-norms into the convolution or linear layer before them, and drop what does nothing.

A batch-norm in evaluation mode is y = gamma (x - mean) / sqrt(var + eps) + beta. If x is the output of a convolution or
linear layer that nothing else reads, and nothing else uses the layer's weight, both together are the layer with

    weight' = weight * f        bias' = (bias - mean) * f + beta        f = gamma / sqrt(var + eps)

f along the output channel. Other batch-norms (behind an activation or padding, a shared weight) stay, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from attar._src.model.operators import (
    argument,
    arguments,
    aten,
    bias_of,
    is_batch_norm,
    is_layer,
    operator_of,
    output_axes,
    weight_of,
)
from attar._src.model.programs import drop_unused, put_parameter, state_of

_ARGUMENTS = "input weight bias running_mean running_var training eps"
_CASTS = (aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other, aten.type_as.default)
#: Name of a weight, factor ``(channels,)``, axis of the channels -> why the weight cannot take the factor, or None.
Refusal = Callable[[str, NDArray[np.float64], int], str | None]


@dataclass(frozen=True)
class Folding:
    """What became of each batch-norm.

    Attributes:
        folded: batch-norm -> the layer it was folded into, or the weight's name unless that is ``<layer>.weight``.
        biases: batch-norm -> the bias that took its shift.
        kept: batch-norm -> why it was not folded.
        copies: bias of a second use of a layer (:func:`separate_biases`) -> the bias of the first.
        values: node of a layer -> node of the batch-norm whose value it has now.
        factors: weight -> what it was multiplied by, float64 ``(channels,)``, and the axis of the channels.
    """

    folded: dict[str, str] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    factors: dict[str, tuple[NDArray[np.float64], int]] = field(default_factory=dict)


def clean(graph: fx.GraphModule) -> None:
    """Drop what returns its input in evaluation mode (dropout, slices of everything, casts to the same type)."""
    for node in list(graph.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.graph.erase_node(node)
        elif operator_of(node).identity or _slices_everything(node) or _casts_nothing(node):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _slices_everything(node: fx.Node) -> bool:
    if node.target is not aten.slice.Tensor:
        return False
    start, end, step = arguments(node, "start end step")
    return bool(start in (0, None) and step == 1) and (end is None or (isinstance(end, int) and end >= 2**62))


def _casts_nothing(node: fx.Node) -> bool:
    """Return whether a node is a cast to the type that its input has: ``x.type_as(y)`` of two float32 tensors."""
    if node.target not in _CASTS:
        return False
    before, after = node.all_input_nodes[0].meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    return (before.dtype, before.device) == (after.dtype, after.device)


def fold_batch_norms(graph: fx.GraphModule, refuse: Refusal = lambda *_: None) -> Folding:
    """Fold every batch-norm that can be folded exactly.

    Args:
        graph: changed in place; weights and biases that change become parameters of its own.
        refuse: says why a weight cannot take a factor; its batch-norm is kept.
    """
    folding = Folding()
    for node in list(graph.graph.nodes):
        if is_batch_norm(node):
            name = _owner(argument(node, "running_mean")) or node.name
            reason = _fold(graph, node, name, folding, refuse)
            if reason:
                folding.kept[name] = reason
    drop_unused(graph)
    return folding


def _fold(graph: fx.GraphModule, node: fx.Node, name: str, folding: Folding, refuse: Refusal) -> str | None:
    """Fold one batch-norm, or return why it is kept."""
    source, gamma, beta, mean, var, training, eps = arguments(node, _ARGUMENTS)
    reason = _reason_to_keep(source, (mean, var), training)
    if reason:
        return reason
    weight_node, bias_node = weight_of(source), bias_of(source)
    target, weight = str(weight_node.target), _value(graph, weight_node)
    axis = output_axes(source, weight.dim())[-1]
    factor = _factor(graph, gamma, var, eps)
    # Of two batch-norms behind one layer, the weight takes both factors.
    whole = factor.numpy() * folding.factors[target][0] if target in folding.factors else factor.numpy()
    reason = refuse(target, whole, axis)
    if reason:
        return reason
    bias = _value(graph, bias_node) if bias_node is not None else torch.zeros_like(factor)
    bias = (bias - _value(graph, mean)) * factor
    if beta is not None:
        bias = bias + _value(graph, beta)
    layer, _, leaf = target.rpartition(".")
    into = layer if layer and leaf == "weight" else target
    bias_name = str(bias_node.target) if bias_node is not None else _free_name(graph, f"{into}.bias", into)
    put_parameter(graph, target, weight * factor.reshape([-1 if each == axis else 1 for each in range(weight.dim())]))
    put_parameter(graph, bias_name, bias)
    if bias_node is None:
        with graph.graph.inserting_after(weight_node):
            bias_node = graph.graph.get_attr(bias_name)
        source.args = (*source.args[:2], bias_node, *source.args[3:])
    node.replace_all_uses_with(source)
    graph.graph.erase_node(node)
    folding.folded[name], folding.biases[name] = into, bias_name
    folding.values[source.name] = node.name
    folding.factors[target] = (whole, axis)
    return None


def _reason_to_keep(source: Any, statistics: tuple[Any, Any], training: Any) -> str | None:
    """Return why the structure of the graph forbids folding a batch-norm, or None."""
    if training or None in statistics:
        return "it normalises by the statistics of each batch"
    if _uses(statistics[0]) > 1:
        return "it is used more than once"
    if not is_layer(source):
        what = getattr(source.target, "__name__", str(source.target)).split(".")[0]
        what = "an input" if source.op == "placeholder" else what
        return f"{what} comes before it, not a convolution or linear layer"
    dim = source.meta["val"].dim()
    if operator_of(source).channel_axis % dim != 1:
        return f"the channels of {source.name} are not its output features"
    if len(source.users) > 1:
        return f"the output of {source.name} is read elsewhere too"
    weight, bias = weight_of(source), bias_of(source)
    if weight.op != "get_attr":
        return f"the weight of {source.name} is computed in the graph"
    if _uses(weight) > 1:
        return f"the weight {weight.target} is used more than once"
    if bias is not None and len(bias.users) > 1:
        return f"the bias {bias.target} is used more than once"
    if len(output_axes(source, dim)) > 1:
        return "a grouped transposed convolution comes before it"
    return None


def separate_biases(graph: fx.GraphModule) -> dict[str, str]:
    """Give every layer a bias of its own where several share one: a module used twice, or tied biases.

    Integer kernels add a bias in steps of input scale times weight scale, and each use has an input of its own.

    Args:
        graph: changed in place; the second use of ``head.bias`` reads a copy called ``head.bias_use2``.

    Returns:
        copy -> the bias of the first use.
    """
    copies: dict[str, str] = {}
    uses: Counter[int] = Counter()
    for node in list(graph.graph.nodes):
        bias = bias_of(node)
        if not isinstance(bias, fx.Node) or bias.op != "get_attr" or operator_of(node).kind not in ("layer", "product"):
            continue
        shared = id(attrgetter(str(bias.target))(graph))
        uses[shared] += 1
        if uses[shared] > 1:
            name = f"{bias.target}_use{uses[shared]}"
            while name in state_of(graph):
                name += "_"
            copies[name] = str(bias.target)
            put_parameter(graph, name, _value(graph, bias))
            with graph.graph.inserting_before(node):
                own = graph.graph.get_attr(name)
            node.replace_input_with(bias, own)
    graph.recompile()
    return copies


def merge_batch_norms(graph: fx.GraphModule) -> None:
    """Write batch-norms that were kept as ``y = f x + (beta - mean f)``: two vectors to store instead of four.

    They stay batch-norms, one kernel each, with mean 0 and variance 1 made in the graph. Those that normalise by the
    statistics of each batch, or share their state, do not change.

    Args:
        graph: changed in place; the two vectors become parameters of its own.
    """
    for node in filter(is_batch_norm, list(graph.graph.nodes)):
        source, gamma, beta, mean, var, training, momentum, eps, *rest = node.args
        if training or mean is None or var is None:
            continue
        if any(_uses(each) > 1 for each in (gamma, beta, mean, var) if each is not None):
            continue
        factor = _factor(graph, gamma, var, eps)
        shift = -_value(graph, mean) * factor
        if beta is not None:
            shift = shift + _value(graph, beta)
        owner, vectors = _owner(mean), []
        for read, leaf, value in ((gamma, "weight", factor), (beta, "bias", shift)):
            name = str(read.target) if read is not None else _free_name(graph, f"{owner}.{leaf}", owner)
            put_parameter(graph, name, value)
            with graph.graph.inserting_before(node):
                vectors.append(graph.graph.get_attr(name))
        with graph.graph.inserting_before(node):
            for constant in (0.0, 1.0):
                options: dict[str, Any] = {"dtype": torch.float32, "device": torch.device("cpu")}
                vectors.append(graph.graph.call_function(aten.full.default, ([len(factor)], constant), options))
        node.args = (source, *vectors, training, momentum, 0.0, *rest)
    drop_unused(graph)


def _factor(graph: fx.GraphModule, gamma: fx.Node | None, var: fx.Node, eps: float) -> torch.Tensor:
    """Return ``gamma / sqrt(var + eps)``, float64 ``(channels,)``."""
    factor = torch.rsqrt(_value(graph, var) + eps)
    return factor if gamma is None else factor * _value(graph, gamma)


def _uses(state: fx.Node) -> int:
    """Return how often a program uses a parameter or buffer."""
    return sum(len(each.users) for each in state.graph.find_nodes(op="get_attr", target=state.target))


def _owner(node: Any) -> str:
    """Return the name of the module whose state ``node`` reads."""
    return str(node.target).rpartition(".")[0] if isinstance(node, fx.Node) and node.op == "get_attr" else ""


def _free_name(graph: fx.GraphModule, wanted: str, weight: str) -> str:
    """Return ``wanted``, or a name made of the weight's if it is taken or no module can hold it."""
    taken = state_of(graph)
    owner, _, leaf = wanted.rpartition(".")
    if owner in dict(graph.named_modules()) and wanted not in taken and not hasattr(graph.get_submodule(owner), leaf):
        return wanted
    name = f"{weight}_folded_bias"
    while name in taken:
        name += "_"
    return name


def _value(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    """Return a parameter or buffer in float64."""
    tensor = attrgetter(str(node.target))(graph)
    assert isinstance(tensor, torch.Tensor)
    return tensor.detach().double()
