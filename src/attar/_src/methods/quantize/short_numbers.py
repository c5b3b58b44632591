"""A model with scales and vectors in fewer digits (``core/numbers/short_tensors.py``), as files are made from."""

from __future__ import annotations

from dataclasses import replace

from attar._src.core.numbers.short_tensors import shorten_tensors
from attar._src.methods.quantize.integer_layers import fit_integer_layers, integer_biases
from attar._src.methods.quantize.low_precision import variances
from attar._src.work.compressed_model import CompressedModel


def shorten_numbers(model: CompressedModel) -> CompressedModel:
    """Return the model with short scales, and vectors in half precision; itself if there is nothing to shorten.

    Biases of integer layers are rounded to steps of the new scales instead. Variances of batch-norms stay as they are.
    """
    kept = integer_biases(model) | {name for each in model.graphs.values() for name in variances(each.traced.graph)}
    short = shorten_tensors(model.stored(), kept)
    return fit_integer_layers(replace(model, tensors={**model.tensors, **short})) if short else model
