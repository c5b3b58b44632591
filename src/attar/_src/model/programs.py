"""Copies of a captured program, the tensors it reads, and modules put between its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import fx, nn


def copy_graph(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph module with nodes of its own, of the same names, on the same parameters and buffers."""
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph.graph, {}))
    copied._codegen = graph.graph._codegen
    made = fx.GraphModule(graph, copied)
    made.meta.update(graph.meta)
    return made


def state_of(graph: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers by name, not copies; a tied one under each of its names."""
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(graph.named_buffers(remove_duplicate=False))}


def set_tensor(graph: fx.GraphModule, name: str, value: torch.Tensor) -> None:
    """Let a graph read ``value`` as its parameter or buffer ``name``; unknown names are ignored."""
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


def make_contiguous(graph: fx.GraphModule) -> None:
    """Let a graph read its tensors in the order of their axes, so that no operator is for the order in memory.

    The export of a module with channels-last weights has them else: pooling to one position becomes a mean and an
    ``as_strided``, which is eleven nodes and an index of every channel in ONNX.
    """
    made: dict[int, torch.Tensor] = {}
    for name, value in state_of(graph).items():
        if not value.is_contiguous():
            own = value.detach().contiguous()
            own = nn.Parameter(own, value.requires_grad) if isinstance(value, nn.Parameter) else own
            set_tensor(graph, name, made.setdefault(id(value), own))  # a tied tensor stays one


def put_parameter(graph: fx.GraphModule, name: str, value: torch.Tensor) -> None:
    """Give a graph a float32 parameter of its own; the module that it was captured from keeps its."""
    owner, _, leaf = name.rpartition(".")
    module = graph.get_submodule(owner)
    module.register_parameter(leaf, nn.Parameter(value.detach().float(), requires_grad=False))


def make_buffers(graph: fx.GraphModule, names: Iterable[str]) -> None:
    """Let parameters of a graph be buffers."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = graph.get_submodule(owner)
        value = module.get_parameter(leaf)
        delattr(module, leaf)
        module.register_buffer(leaf, value.detach())


def drop_unused(graph: fx.GraphModule) -> None:
    """Drop nodes, modules and state that the output does not need."""
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [n for n, _ in [*graph.named_parameters(), *graph.named_buffers()] if n not in used]:
        owner, _, leaf = name.rpartition(".")
        delattr(graph.get_submodule(owner), leaf)
    graph.recompile()


def to_device(graph: fx.GraphModule, device: torch.device) -> None:
    """Make the tensors that the program itself creates on ``device``."""
    for node in graph.graph.nodes:
        if isinstance(node.kwargs.get("device"), torch.device):
            node.kwargs = {**node.kwargs, "device": device}
    graph.recompile()


def wrap(graph: fx.GraphModule, functions: Mapping[str, nn.Module], prefix: str) -> None:
    """Put modules behind values and parameters, in place: their readers, except the graph's output, read ``f(x)``.

    ``f`` of a parameter keeps the parameter's strides: a convolution computes in the memory layout of its weight, and
    passes it on to all that follows.

    Args:
        graph: changed in place.
        functions: name of a node, or of a parameter or buffer in the graph's state -> the module.
        prefix: of the submodules' names, a different one for each call.
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
                read = graph.graph.call_function(with_strides, (made, node))
        for user in list(node.users):
            if user not in (made, read) and user.op != "output":
                user.replace_input_with(node, read)
    graph.recompile()


def with_strides(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return ``x`` with the strides of the dense tensor ``like``; ``x`` itself if it has them or another shape."""
    alike = x.stride() == like.stride() or x.shape != like.shape
    return x if alike else torch.empty_like(like, dtype=x.dtype, device=x.device).copy_(x)
