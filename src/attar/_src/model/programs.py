"""Programs: copies of a graph module, the tensors it reads by name."""

from __future__ import annotations

import torch
from torch import fx, nn


def copy_graph(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph module with nodes of its own, of the same names, on the same parameters and buffers."""
    copied = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    output = copied.graph_copy(graph.graph, values)
    copied.output(output)
    copied._codegen = graph.graph._codegen
    made = fx.GraphModule(graph, copied)
    made.meta.update(graph.meta)
    return made


def state_of(graph: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers by name, themselves; a tied one by each of its names."""
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(graph.named_buffers(remove_duplicate=False))}


def set_tensor(graph: fx.GraphModule, name: str, value: torch.Tensor) -> None:
    """Let a graph read ``value`` as its parameter or buffer ``name``; a name it does not have changes nothing."""
    owner, _, leaf = name.rpartition(".")
    try:
        module = graph.get_submodule(owner)
    except AttributeError:
        return
    if leaf in module._parameters:
        parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
        module._parameters[leaf] = parameter
    elif leaf in module._buffers:
        module._buffers[leaf] = value
