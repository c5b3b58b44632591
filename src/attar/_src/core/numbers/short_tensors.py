"""Scales, biases and norms in fewer digits, where that is small beside the rounding of the weights.

A weight's codes are chosen; what is rounded here is the number they are multiplied by, to 8 binary digits behind the
point: at most 0.2 %, 0.11 % in root mean square. An output channel then errs by -59 dB of its products, where the
rounding of its weights to 8 bits errs by about -45 dB, to 4 bits by -20. The bias of a layer becomes half precision if
each of its numbers errs by at most 1/32 of a step of its channel's weights, which are rounded by up to half a step for
each input. Scales that are short already, as Attar chooses them, stay as they are.

A layer norm y = f x + b, with x of unit mean square over the channels, that only weights read, is compared with these:
an error of f by a share e is the same as one of the weights by that share, e |code| steps. Its f and b become half
precision if that is at most 1/32 of a step in root mean square over the weight: at 4 bits 0.002 steps for 1/3 that
rounding errs by, at 8 bits 0.02. The error of b is taken as a share of the root mean square of f, the size of what
varies.

All other numbers stay: a mean or a position may be subtracted from a number as large, or multiplied by one, and then no
digit of it is too many. So do norms that a residual stream reads, whose mean another norm may subtract.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attar._src.core.float16 import SCALE_BITS, from_half, round_nearest, to_half
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse, dequantize

_FEWEST = 4  # scales; fewer take less than the record of their coding
_SHARE = 1 / 32  # of a step


@dataclass(frozen=True)
class NormVectors:
    """The vectors of a norm, f x + b, or of another product f x with a vector, and what reads the output.

    Attributes:
        factor: name of f.
        shift: name of b, None without one.
        weights: names of the weights that multiply the output; nothing else reads it.
    """

    factor: str
    shift: str | None
    weights: frozenset[str]


def shorten_tensors(
    tensors: Mapping[str, CompressedTensor], biases: Mapping[str, str], norms: Iterable[NormVectors] = ()
) -> dict[str, CompressedTensor]:
    """Return name -> the tensor with fewer digits, of those that change.

    None is if no weight has codes: a model in floating point stays exact.

    Args:
        tensors: all of a model.
        biases: name of a bias -> that of the weight of its layer, of biases that may change.
        norms: whose vectors may change.
    """
    if not any(isinstance(tensor, Quantized | Codebook | Sparse) for tensor in tensors.values()):
        return {}
    made: dict[str, CompressedTensor] = {
        name: _short_scales(tensor) for name, tensor in tensors.items() if isinstance(tensor, Quantized)
    }
    for name, weight in biases.items():
        made[name] = _short_bias(tensors[name], tensors[weight])
    for norm in norms:
        made |= _short_norm(norm, tensors)
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
    half, error = _half(bias)
    step = weight.scale if weight.scale.size == bias.data.size else weight.scale.min()
    return half if bias.data.size and (error <= _SHARE * step).all() else bias


def _short_norm(norm: NormVectors, tensors: Mapping[str, CompressedTensor]) -> dict[str, CompressedTensor]:
    factor, readers = tensors[norm.factor], [tensors[name] for name in norm.weights]
    if not isinstance(factor, Dense) or factor.dtype != "f32" or not factor.data.size:
        return {}
    codes = [_root_mean_square_code(each) for each in readers if isinstance(each, Quantized)]
    if len(codes) < len(readers):
        return {}
    share, size = _SHARE / max(*codes, 1.0), np.abs(factor.data.astype(np.float64))
    bounds = {norm.factor: share * size, norm.shift: share * np.sqrt((size**2).mean())}
    made: dict[str, CompressedTensor] = {}
    for name, bound in bounds.items():
        if name is None:
            continue
        vector = tensors[name]
        if isinstance(vector, Dense) and vector.dtype == "f32" and vector.data.shape == factor.data.shape:
            half, error = _half(vector)
            if (error <= bound).all():
                made[name] = half
    return made


def _root_mean_square_code(weight: Quantized) -> float:
    """Return the root mean square of the weights in steps, of codes counted from the zero point."""
    steps = dequantize(weight.codes, np.ones_like(weight.scale), weight.zero_point, weight.scheme.granularity)
    return float(np.sqrt(np.square(steps, dtype=np.float64).mean())) if steps.size else 0.0


def _half(vector: Dense) -> tuple[Dense, NDArray[np.float64]]:
    """Return a vector in half precision, and by how much each number errs."""
    half = Dense(to_half(vector.data, "f16"), "f16")
    with np.errstate(invalid="ignore"):
        return half, np.abs(half.dense().astype(np.float64) - vector.data)
