"""Multiply a compressed tensor along one axis by rescaling its grid; for folding a batch-norm into a weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attar._src.core.scheme import Granularity, PerBlock, PerChannel, PerGroup, PerTensor, Shape
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse

_TINY = float(np.finfo(np.float32).tiny)


def rescale(tensor: CompressedTensor, factor: NDArray[np.float64], axis: int) -> CompressedTensor | None:
    """Return ``tensor * factor`` along ``axis``, or None if its granularity cannot express that.

    Float32 scales take the factor; codes stay, except that a negative factor negates symmetric narrow-range codes. A
    per-tensor scale becomes per-channel.

    Args:
        tensor: of a floating-point type.
        factor: finite, ``(tensor.shape[axis],)``.
        axis: the axis of the channels.
    """
    match tensor:
        case Dense():
            return Dense((tensor.dense() * factor.reshape(_along(tensor, axis))).astype(np.float32))
        case Sparse(mask=mask, values=Dense() as values):
            return Sparse(mask, Dense((values.dense() * factor[np.nonzero(mask)[axis]]).astype(np.float32)))
        case Quantized():
            return _quantized(tensor, factor, axis)
        case Codebook() if found := _channels(tensor.granularity, tensor.shape, axis):
            granularity, source, channel = found
            scale, offset = ((x[source] * factor[channel]).astype(np.float32) for x in (tensor.scale, tensor.offset))
            return replace(tensor, scale=scale, offset=offset, granularity=granularity, scale_dtype="f32")
    return None


def _quantized(tensor: Quantized, factor: NDArray[np.float64], axis: int) -> Quantized | None:
    scheme, codes, zero_point = tensor.scheme, tensor.codes, tensor.zero_point
    found = _channels(scheme.granularity, tensor.shape, axis)
    # Only symmetric codes can be negated, or zeroed for a factor of 0, as a scale must stay positive.
    mirrored = scheme.symmetric and scheme.qmin == -scheme.qmax
    if found is None or ((factor < 0).any() and not mirrored) or ((factor == 0).any() and not scheme.symmetric):
        return None
    granularity, source, channel = found
    scale = np.maximum(tensor.scale[source] * np.abs(factor[channel]), _TINY).astype(np.float32)
    if zero_point is None:
        codes = codes * np.sign(factor).astype(np.int8).reshape(_along(tensor, axis))
    else:
        zero_point = zero_point[source]
    return Quantized(codes, scale, scheme.model_copy(update={"granularity": granularity}), zero_point)


def _channels(
    granularity: Granularity, shape: Shape, axis: int
) -> tuple[Granularity, NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the new granularity, and the old scale and the channel of each new scale; None if no granularity fits."""
    channels = np.arange(shape[axis])
    match granularity:
        case PerTensor():
            return PerChannel(axis=axis), np.zeros_like(channels), channels
        case PerChannel(axis=own) if own == axis:
            return granularity, channels, channels
        case PerGroup(axis=own) if own == axis:
            count = granularity.count(shape)
            return granularity, np.arange(count), channels.repeat(count // max(len(channels), 1))
        case PerBlock(sizes=sizes) if sizes[axis] == 1:
            blocks = [length // size for length, size in zip(shape, sizes, strict=True)]
            count = granularity.count(shape)
            return granularity, np.arange(count), np.indices(blocks)[axis].reshape(-1)
    return None


def _along(tensor: CompressedTensor, axis: int) -> list[int]:
    return [-1 if each == axis else 1 for each in range(len(tensor.shape))]
