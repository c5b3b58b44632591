"""Tensors and values of a compressed model that stay in floating point, with the reasons, from the model alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import fx

from attar._src.core.format_bytes import format_bytes
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized
from attar._src.methods.quantize.dynamic_layers import dynamic_layers
from attar._src.model.operators import data_of, kind_of
from attar._src.model.sites import Site, find_sites
from attar._src.model.weights import find_weights
from attar._src.work.compressed_model import CompressedGraph, CompressedModel

#: Why a value stays in floating point by the user's word, or because calibration tells no range.
KEPT_VALUE = "kept by request, or the same in all calibration examples"
#: Largest share of the parameters that may stay in floating point unasked without a warning.
UNASKED = 0.05


def left_in_floating_point(model: CompressedModel) -> dict[str, str]:
    """Return tensor or value -> why it is not quantized, such as ``{"head.weight": "kept by request: 2.6 KB"}``.

    Tensors are those of two or more axes, with their bytes in the file; biases and norms are not listed. Values are
    inputs and outputs of quantized layers, if the model has quantized activations. Empty for a model without quantized
    tensors.
    """
    left = {each.name: f"{each.why}: {format_bytes(each.size)}" for each in _floating(model)}
    for name, graph in model.graphs.items():
        # Values of one graph are called as they are; where there are several, after their graph.
        prefix = f"{name}." if len(model.graphs) > 1 else ""
        left |= {prefix + value: why for value, why in _values(graph, model.tensors).items()}
    return left


def floating_warning(model: CompressedModel) -> tuple[str, ...]:
    """Return a sentence if more than 5 % of a quantized model stay in floating point though nobody asked for it.

    Only parameters count: masks, tables of sines and other buffers are no weights that anybody trained.
    """
    unasked = [each for each in _floating(model) if each.parameter and not each.asked]
    parameters = _parameters(model)
    known = [value for name, value in model.state().items() if name in parameters and value.is_floating_point()]
    share = sum(each.elements for each in unasked) / max(sum(value.numel() for value in known), 1)
    if share <= UNASKED:
        return ()
    largest = sorted(unasked, key=lambda each: -each.size)
    named = ", ".join(f"{each.name} ({format_bytes(each.size)})" for each in largest[:4])
    more = f" and {len(largest) - 4} more" if len(largest) > 4 else ""
    names = [each.name for each in largest[:4]]
    return (
        f"{share:.0%} of the parameters stay in floating point, because no layer multiplies data by them: "
        f"{named}{more}; quantize them by name, overrides={dict.fromkeys(names, 8)!r}, or accept it with "
        f"keep={names!r}",
    )


class _Floating(NamedTuple):
    """A tensor that stays in floating point.

    Attributes:
        elements, size: their number, and bytes in the file.
        why: the reason, in words.
        asked: whether the user asked for it.
        parameter: whether it is a parameter of the module, not a buffer.
    """

    name: str
    elements: int
    size: int
    why: str
    asked: bool
    parameter: bool


def _floating(model: CompressedModel) -> list[_Floating]:
    """Return the tensors of two axes or more without a grid; none of a model without quantized weights."""
    weights = model.weights()
    if not any(is_on_grid(model.tensors, name) for name in weights):
        return []
    kept, parameters, found = set(_globs(model.record)), _parameters(model), []
    targeted = any(isinstance(each.get("bits"), dict) for each in model.record)
    for name, value in model.state().items():
        if not value.is_floating_point() or value.dim() < 2 or is_on_grid(model.tensors, name):
            continue
        named = any(fnmatchcase(each, glob) for glob in kept for each in (name, _layer(name)))
        asked = named or name in weights
        if targeted and asked and not named:
            why = "a target has room for it"
        else:
            why = "kept by request" if asked else _why(name in parameters, value)
        stored = model.tensors.get(name)
        width = stored.data.itemsize if isinstance(stored, Dense) else value.element_size()
        found.append(_Floating(name, value.numel(), value.numel() * width, why, asked, name in parameters))
    return found


def _why(parameter: bool, value: torch.Tensor) -> str:
    what = "not recognised as a weight" if parameter else "a buffer"
    if not torch.isfinite(value).all():
        return f"{what} with infinite elements, which no grid has"
    return f"{what}; name it in overrides to quantize it"


def _parameters(model: CompressedModel) -> set[str]:
    """Return the names of the parameters that the graphs read."""
    return {
        name
        for graph in model.graphs.values()
        for name, _ in graph.traced.graph.named_parameters(remove_duplicate=False)
    }


def _globs(record: Any) -> Iterator[str]:
    """Yield the globs of every ``keep`` in the record of the stages."""
    if isinstance(record, Mapping):
        yield from record.get("keep") or ()
    for each in record.values() if isinstance(record, Mapping) else record if isinstance(record, list | tuple) else ():
        yield from _globs(each)


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def is_on_grid(tensors: Mapping[str, CompressedTensor], name: str) -> bool:
    """Return whether a tensor is stored as codes."""
    return isinstance(tensors.get(name), Quantized | Codebook)


def integer_sites(
    graph: CompressedGraph, tensors: Mapping[str, CompressedTensor], rounded: Collection[str] = ()
) -> tuple[Site, ...]:
    """Return the sites of the layers with quantized weights; those named in ``rounded`` count as quantized."""
    return _sites(graph, tensors, (graph.folded_later or graph.traced).values, rounded)


def _sites(
    graph: CompressedGraph,
    tensors: Mapping[str, CompressedTensor],
    values: frozenset[str],
    rounded: Collection[str] = (),
) -> tuple[Site, ...]:
    deployed = graph.folded_later or graph.traced
    weights = find_weights(deployed.graph)
    floating = [each for name, each in weights.items() if name not in rounded and not is_on_grid(tensors, name)]
    readers = {reader for weight in floating for reader in weight.readers}
    sites = find_sites(deployed.graph, values, skip=lambda node: node.name in readers, floating=graph.floating)
    if graph.folded_later is None:
        return sites
    # The same values by the names that they have while batch-norms are still there.
    nodes = graph.traced.computed_by()
    names = {name: nodes[captured] for name, captured in deployed.origins.items() if captured in nodes}
    return tuple(
        replace(
            site,
            values=tuple(names[name] for name in site.values if name in names),
            sources=tuple(names[name] for name in site.sources),
        )
        for site in sites
        if names.keys() >= set(site.sources)
    )


def _values(graph: CompressedGraph, tensors: Mapping[str, CompressedTensor]) -> dict[str, str]:
    """Return value -> why it is not quantized, for inputs and outputs of quantized layers."""
    nodes = list(graph.traced.graph.graph.nodes)
    inside = [node.name for node in nodes if kind_of(node) == "attention"]
    attention = dict.fromkeys(inside, "attention's own products stay in floating point")
    if graph.dynamic and not graph.activations:
        return _not_dynamic(graph, tensors) | attention
    if not graph.activations:
        return {}
    everywhere = frozenset(node.name for node in nodes)
    placed = {name for site in integer_sites(graph, tensors) for name in site.sources}
    wanted = {name for site in _sites(graph, tensors, everywhere) for name in site.sources}
    left = {}
    for site in _sites(replace(graph, floating=frozenset()), tensors, everywhere):
        for name in site.sources:
            if name not in wanted:
                left[name] = KEPT_VALUE
            elif name not in placed:
                left[name] = "the deployed graph has no place for its grid"
            elif name not in graph.activations:
                left[name] = "no stage quantized it"
    read = _read_dynamically(graph)
    return {name: why for name, why in left.items() if name not in read} | attention


def _read_dynamically(graph: CompressedGraph) -> set[str]:
    """Return the values that no layer reads but dynamic ones and operators that are no products."""
    weights = find_weights(graph.traced.graph).values()
    others = {reader for each in weights for reader in each.readers} - graph.dynamic
    nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
    read = {data.name for name in graph.dynamic if isinstance(data := data_of(nodes[name])[0], fx.Node)}
    return read - {data.name for name in others for data in data_of(nodes[name]) if isinstance(data, fx.Node)}


def _not_dynamic(graph: CompressedGraph, tensors: Mapping[str, CompressedTensor]) -> dict[str, str]:
    """Return value -> why a layer that reads it does not quantize it, in a graph of dynamic layers."""
    nodes, left = {node.name: node for node in graph.traced.graph.graph.nodes}, {}
    for name, why in dynamic_layers(graph, tensors).items():
        if name not in graph.dynamic and isinstance(data := data_of(nodes[name])[0], fx.Node):
            left[data.name] = why or ("kept by request" if data.name in graph.floating else "no stage quantized it")
    return left
