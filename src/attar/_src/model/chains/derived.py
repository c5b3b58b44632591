"""Weights computed from parameters alone: parametrizations, masks, products of two parameters.

``weight_norm`` computes ``weight = g v / |v|``, ``torch.nn.utils.prune`` computes ``weight_orig * weight_mask``. Such a
value does not depend on the inputs. The deployed graph stores it as one tensor, called as the module calls it
(``0.weight``), which is quantized like any parameter; in training, constraints act on the value of the node that
computes it. What only moves elements stays in the graph (``model.chains.channels``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx, nn

from attar._src.model.chains.constants import constant_nodes, evaluate, is_move
from attar._src.model.programs import drop_unused, make_buffers, put_parameter, state_of
from attar._src.model.weights import find_weights

_PARAMETRIZATION = re.compile(r"(?:^|(?<=\.))parametrizations\.(?P<tensor>[^.]+)\..*")


def find_derived(graph: fx.GraphModule, module: nn.Module) -> dict[str, str]:
    """Return name of a tensor to store -> the node that computes it from parameters and buffers.

    A tensor with more elements than those it is computed from is not stored: the product of two narrow matrices.
    Neither is a number or vector that the module has no name for, such as ``exp(temperature)``: no weight is one, and
    the module's own parameter stays in the file.

    Args:
        graph: a captured program.
        module: the module it was captured from; a parametrized tensor is called as there.
    """
    constant, state = constant_nodes(graph.graph), state_of(graph)
    found: dict[str, str] = {}
    for node in _computed(graph.graph, constant, state):
        sources = _sources(node, state)
        natural = _natural_name(module, sources)
        if natural is None and node.meta["val"].dim() < 2:
            continue
        name = natural or f"{_largest(sources, state)}_{_operator(node)}"
        number, free = 1, name
        while free in state or free in found:
            number += 1
            free = f"{name}_{number}"
        found[free] = node.name
    return found


def derived_value(graph: fx.GraphModule, node: str) -> torch.Tensor:
    """Return the present value of a node of :func:`find_derived`, with gradient to the parameters."""
    found = next(each for each in graph.graph.nodes if each.name == node)
    return evaluate(graph, [found])[found]


def fold_derived(graph: fx.GraphModule, derived: Mapping[str, str]) -> None:
    """Put a parameter in the place of each derived tensor, in place, and drop what only these need."""
    if not derived:
        return
    nodes = {node.name: node for node in graph.graph.nodes}
    state, parameters = state_of(graph), {name for name, _ in graph.named_parameters(remove_duplicate=False)}
    values = evaluate(graph, [nodes[node] for node in derived.values() if node in nodes])
    of_buffers = []
    for name, target in derived.items():
        if target not in nodes:
            continue
        node = nodes[target]
        if parameters.isdisjoint(_sources(node, state)):
            of_buffers.append(name)
        put_parameter(graph, name, values[node])
        with graph.graph.inserting_before(node):
            stored = graph.graph.get_attr(name)
        stored.meta = {key: value for key, value in node.meta.items() if key in ("val", "tensor_meta")}
        node.replace_all_uses_with(stored)
    drop_unused(graph)
    if of_buffers:
        # Of buffers alone, only what multiplies data is a weight: a mask is none.
        make_buffers(graph, set(of_buffers) - find_weights(graph).keys())


def _computed(graph: fx.Graph, constant: Collection[fx.Node], state: Mapping[str, torch.Tensor]) -> list[fx.Node]:
    """Return the constant nodes to store, in the order of the graph: the last to compute, behind which are moves."""
    todo = [node for node in constant if any(user not in constant for user in node.users)]
    found: set[fx.Node] = set()
    seen: set[fx.Node] = set()
    while todo:
        node = todo.pop()
        if node in seen or node.op == "get_attr":
            continue
        seen.add(node)
        if is_move(node) or not _is_smaller(node, state):
            todo.extend(each for each in node.all_input_nodes if each in constant)
        else:
            found.add(node)
    return [node for node in graph.nodes if node in found]


def _is_smaller(node: fx.Node, state: Mapping[str, torch.Tensor]) -> bool:
    """Whether a node computes a float32 tensor with at most the elements of the state it is computed from."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32:
        return False
    read = [state[name] for name in _sources(node, state)]
    return bool(read) and value.numel() <= sum(each.numel() for each in read if each.is_floating_point())


def _sources(node: fx.Node, state: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors of the state that a node depends on."""
    found: dict[str, None] = {}
    todo, seen = [node], set()
    while todo:
        each = todo.pop()
        if each in seen:
            continue
        seen.add(each)
        if each.op == "get_attr" and str(each.target) in state:
            found[str(each.target)] = None
        todo.extend(each.all_input_nodes)
    return sorted(found)


def _natural_name(module: nn.Module, sources: Collection[str]) -> str | None:
    """Return what the module calls a tensor that it computes from these, None if it has no name for it.

    ``0.parametrizations.weight.original0`` -> ``0.weight``; ``0.weight_orig``, ``0.weight_mask`` -> ``0.weight`` if the
    module ``0`` has a ``weight`` that is no parameter.
    """
    names = set()
    for source in sources:
        owner, _, leaf = source.rpartition(".")
        matched = _PARAMETRIZATION.search(source)
        if matched:
            names.add(_PARAMETRIZATION.sub(matched["tensor"], source))
            continue
        holder = _submodule(module, owner)
        words = leaf.split("_")
        stems = ["_".join(words[:count]) for count in range(1, len(words))]
        names |= {f"{owner}.{stem}".lstrip(".") for stem in stems if _is_computed(holder, stem)}
    return names.pop() if len(names) == 1 else None


def _is_computed(holder: Any, name: str) -> bool:
    """Whether a module has a tensor as a plain attribute, as hooks write it before each call."""
    return isinstance(vars(holder).get(name), torch.Tensor) if isinstance(holder, nn.Module) else False


def _submodule(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None


def _largest(sources: Collection[str], state: Mapping[str, torch.Tensor]) -> str:
    floating = [name for name in sources if state[name].is_floating_point()]
    return max(floating, key=lambda name: state[name].numel())


def _operator(node: fx.Node) -> str:
    """Return the plain name of a node's operator: ``exp``, ``mul``."""
    name = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node.name)
    return str(name).strip("_").split(".")[0]
