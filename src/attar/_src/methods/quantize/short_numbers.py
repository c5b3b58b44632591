"""A model with scales, biases and norms in fewer digits (``core/numbers/short_tensors.py``), as files are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import fx

from attar._src.core.numbers.short_tensors import NormVectors, shorten_tensors
from attar._src.methods.quantize.integer_layers import fit_integer_layers, integer_biases
from attar._src.methods.quantize.layer_biases import layer_biases
from attar._src.model.chains.constants import is_move
from attar._src.model.operators import argument, aten, data_of, operator_of
from attar._src.model.weights import find_weights
from attar._src.work.compressed_model import CompressedModel


def shorten_numbers(model: CompressedModel) -> CompressedModel:
    """Return the model with short scales, and biases and norms in half precision; itself if nothing can be shortened.

    Biases of integer layers are rounded to steps of the new scales instead, and those of several weights stay.
    """
    stored, exact = model.stored(), integer_biases(model)
    weights: dict[str, set[str]] = {}
    for graph in model.graphs.values():
        for bias, weight in layer_biases(graph.traced.graph):
            if bias in stored and weight in stored and bias not in exact:
                weights.setdefault(bias, set()).add(weight)
    norms = _norms([graph.traced.graph for graph in model.graphs.values()], stored)
    short = shorten_tensors(
        stored, {bias: next(iter(found)) for bias, found in weights.items() if len(found) == 1}, norms
    )
    return fit_integer_layers(replace(model, tensors={**model.tensors, **short})) if short else model


def _norms(graphs: Sequence[fx.GraphModule], stored: Collection[str]) -> Iterator[NormVectors]:
    """Yield the norms, or products with a vector, that weights alone read; no other node has their vectors."""
    nodes = [node for graph in graphs for node in graph.graph.nodes]
    uses = Counter(str(node.target) for node in nodes if node.op == "get_attr" for _ in node.users)
    for graph in graphs:
        readers = {
            reader: name
            for name, weight in find_weights(graph).items()
            if weight.role == "product"
            for reader in weight.readers
        }
        for node in graph.graph.nodes:
            names = [name for name in _vectors(node) if name is not None]
            if not names or any(uses[name] > 1 or name not in stored for name in names):
                continue
            weights = frozenset(_read_by(node, readers))
            if weights and weights <= set(stored):
                yield NormVectors(names[0], names[1] if len(names) > 1 else None, weights)


def _vectors(node: fx.Node) -> tuple[str | None, str | None]:
    """Return the names of the vectors that a node multiplies its channels by and adds to them; None for none."""
    if operator_of(node).mixes == "normalized_shape":
        known = {each.name for each in node.target._schema.arguments}  # type: ignore[union-attr]
        given = [argument(node, name) for name in ("weight", "bias") if name in known]
        names = [_parameter(each) for each in given] + [None]
        return (names[0], names[1]) if names[0] is not None else (None, None)
    if node.target is aten.mul.Tensor:
        for vector in node.all_input_nodes:
            shape = vector.meta["val"].shape
            if _parameter(vector) is not None and len(shape) == 1 and shape[0] == node.meta["val"].shape[-1]:
                return _parameter(vector), None
    return None, None


def _parameter(given: object) -> str | None:
    return str(given.target) if isinstance(given, fx.Node) and given.op == "get_attr" else None


def _read_by(node: fx.Node, readers: Mapping[str, str]) -> Iterator[str]:
    """Yield the weights that multiply a value, through moves, and ``""`` for each other node that reads it."""
    for user in node.users:
        if user.name in readers:
            yield readers[user.name] if node in data_of(user) else ""
        elif is_move(user) or user.target is aten.type_as.default or _scales_all_channels(user, node):
            yield from _read_by(user, readers)
        else:
            yield ""


def _scales_all_channels(node: fx.Node, value: fx.Node) -> bool:
    """Return whether a node multiplies all channels of a value by one number, as after x was divided by its length."""
    if node.target is not aten.mul.Tensor:
        return False
    shapes = [each.meta["val"].shape for each in node.all_input_nodes if each is not value]
    return len(shapes) == 1 and len(shapes[0]) > 0 and shapes[0][-1] == 1
