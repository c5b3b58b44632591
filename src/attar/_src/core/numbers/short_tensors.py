"""Scales and biases in fewer digits, where that is small beside the rounding of the weights.

A weight's codes are chosen; what is rounded here is the number they are multiplied by, to 8 binary digits behind the
point: at most 0.2 %, 0.11 % in root mean square. An output channel then errs by -59 dB of its products, where the
rounding of its weights to 8 bits errs by about -45 dB, to 4 bits by -20. The bias of a layer becomes half precision if
each of its numbers errs by at most 1/32 of a step of its channel's weights, which are rounded by up to half a step for
each input. Scales that are short already, as Attar chooses them, stay as they are, and so do all other numbers: a mean
or a position may be subtracted from a number as large, or multiplied by one, and then no digit of it is too many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from attar._src.core.float16 import SCALE_BITS, from_half, round_nearest, to_half
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse

_FEWEST = 4  # scales; fewer take less than the record of their coding
_SHARE = 1 / 32  # of a step


def shorten_tensors(tensors: Mapping[str, CompressedTensor], biases: Mapping[str, str]) -> dict[str, CompressedTensor]:
    """Return name -> the tensor with fewer digits, of those that change.

    None is if no weight has codes: a model in floating point stays exact.

    Args:
        tensors: all of a model.
        biases: name of a bias -> that of the weight of its layer, of biases that may change.
    """
    if not any(isinstance(tensor, Quantized | Codebook | Sparse) for tensor in tensors.values()):
        return {}
    made: dict[str, CompressedTensor] = {
        name: _short_scales(tensor) for name, tensor in tensors.items() if isinstance(tensor, Quantized)
    }
    for name, weight in biases.items():
        made[name] = _short_bias(tensors[name], tensors[weight])
    return {name: tensor for name, tensor in made.items() if tensor is not tensors[name]}


def _short_scales(tensor: Quantized) -> Quantized:
    if tensor.scale.size < _FEWEST:
        return tensor
    scale, dtype = round_nearest(tensor.scale, SCALE_BITS), tensor.scale_dtype
    sound = np.isfinite(scale).all() and (scale > 0).all()
    exact = sound and (dtype == "f32" or (from_half(to_half(scale, dtype), dtype) == scale).all())
    return replace(tensor, scale=scale) if exact and (scale != tensor.scale).any() else tensor


def _short_bias(bias: CompressedTensor, weight: CompressedTensor) -> CompressedTensor:
    if not isinstance(bias, Dense) or bias.dtype != "f32" or not isinstance(weight, Quantized):
        return bias
    half = Dense(to_half(bias.data, "f16"), "f16")
    step = weight.scale if weight.scale.size == bias.data.size else weight.scale.min()
    with np.errstate(invalid="ignore"):
        error = np.abs(half.dense().astype(np.float64) - bias.data)
    return half if bias.data.size and (error <= _SHARE * step).all() else bias
