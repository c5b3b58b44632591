"""A model with scales and biases in fewer digits (``core/numbers/short_tensors.py``), as files are made from."""

from __future__ import annotations

from dataclasses import replace

from attar._src.core.numbers.short_tensors import shorten_tensors
from attar._src.methods.quantize.integer_layers import fit_integer_layers, integer_biases
from attar._src.methods.quantize.layer_biases import layer_biases
from attar._src.work.compressed_model import CompressedModel


def shorten_numbers(model: CompressedModel) -> CompressedModel:
    """Return the model with short scales, and biases in half precision; itself if there is nothing to shorten.

    Biases of integer layers are rounded to steps of the new scales instead, and those of several weights stay.
    """
    stored, exact = model.stored(), integer_biases(model)
    weights: dict[str, set[str]] = {}
    for graph in model.graphs.values():
        for bias, weight in layer_biases(graph.traced.graph):
            if bias in stored and weight in stored and bias not in exact:
                weights.setdefault(bias, set()).add(weight)
    short = shorten_tensors(stored, {bias: next(iter(found)) for bias, found in weights.items() if len(found) == 1})
    return fit_integer_layers(replace(model, tensors={**model.tensors, **short})) if short else model
