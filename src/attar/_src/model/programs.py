"""Programs: copies of a graph module, the tensors it reads by name."""

from __future__ import annotations

from collections.abc import Mapping

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


def to_device(graph: fx.GraphModule, device: torch.device) -> None:
    """Let tensors that the program itself makes be made on ``device``."""
    for node in graph.graph.nodes:
        if isinstance(node.kwargs.get("device"), torch.device):
            node.kwargs = {**node.kwargs, "device": device}
    graph.recompile()


def wrap(graph: fx.GraphModule, functions: Mapping[str, nn.Module], prefix: str) -> None:
    """Let everything but the graph's output read what a module makes of a value or of a parameter.

    What is made of a parameter is laid out in memory as the parameter is: convolutions compute in the layout of their
    weight, and so would all that follows them.

    Args:
        graph: changed in place.
        functions: name of a node, or of a parameter or buffer as the graph's state has it -> the module.
        prefix: what the submodules are called by, so that several wraps can follow each other.
    """
    for node in list(graph.graph.nodes):
        name = str(node.target) if node.op == "get_attr" else node.name
        if name not in functions:
            continue
        called = f"{prefix}{node.name}"
        graph.add_submodule(called, functions[name])
        with graph.graph.inserting_after(node):
            made = graph.graph.call_module(called, (node,))
        read = made
        if node.op == "get_attr":
            with graph.graph.inserting_after(made):
                read = graph.graph.call_function(laid, (made, node))
        for user in list(node.users):
            if user not in (made, read) and user.op != "output":
                user.replace_input_with(node, read)
    graph.recompile()


def laid(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return ``x`` with the strides of ``like``, a dense tensor; ``x`` itself where it has them or another shape."""
    alike = x.stride() == like.stride() or x.shape != like.shape
    return x if alike else torch.empty_like(like, dtype=x.dtype, device=x.device).copy_(x)
