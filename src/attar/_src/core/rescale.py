"""Multiply a compressed tensor along one axis by rescaling its grid, as folding a batch-norm into a weight needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.scheme import PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse

_TINY = float(np.finfo(np.float32).tiny)


def rescale(tensor: CompressedTensor, factor: NDArray[np.float64], axis: int) -> CompressedTensor | None:
    """Return ``tensor * factor`` along ``axis``, or None if its granularity cannot express that.

    Float32 scales take the factor; codes stay, except that a negative factor negates symmetric narrow-range codes. A
    per-tensor scale becomes per-channel.

    Args:
        tensor: a floating-point tensor of any kind.
        factor: finite, ``(tensor.shape[axis],)``.
        axis: the axis of the channels.
    """
    match tensor:
        case Dense():
            return Dense((tensor.dense() * _along(factor, axis, len(tensor.shape))).astype(np.float32))
        case Quantized():
            return _quantized(tensor, factor, axis)
        case Codebook():
            index = _channels(tensor.granularity, tensor.shape, axis)
            if index is None:
                return None
            granularity, source, channel = index
            scale = (tensor.scale[source] * factor[channel]).astype(np.float32)
            offset = (tensor.offset[source] * factor[channel]).astype(np.float32)
            return replace(tensor, scale=scale, offset=offset, granularity=granularity, scale_dtype="f32")
        case Sparse(mask=mask, values=Dense() as values):
            place = np.nonzero(mask)[axis]
            return Sparse(mask, Dense((values.dense() * factor[place]).astype(np.float32)))
    return None


def _quantized(tensor: Quantized, factor: NDArray[np.float64], axis: int) -> Quantized | None:
    index = _channels(tensor.scheme.granularity, tensor.shape, axis)
    mirrored = tensor.scheme.symmetric and tensor.scheme.qmin == -tensor.scheme.qmax
    if index is None or ((factor < 0).any() and not mirrored):
        return None
    granularity, source, channel = index
    # A scale must stay positive: for a factor of 0 the codes become zero instead.
    dead = factor == 0
    scale = np.maximum(tensor.scale[source] * np.abs(factor[channel]), _TINY).astype(np.float32)
    sign = _along(np.where(dead, 0, np.where(factor < 0, -1, 1)), axis, len(tensor.shape))
    zero_point = None if tensor.zero_point is None else tensor.zero_point[source]
    codes: NDArray[Any] = tensor.codes
    if tensor.scheme.symmetric:
        codes = (codes * sign).astype(codes.dtype)
    elif dead.any():
        return None
    scheme = Scheme(**{**dict(tensor.scheme), "granularity": granularity})
    return Quantized(codes, scale, scheme, zero_point)


def _channels(
    granularity: Any, shape: tuple[int, ...], axis: int
) -> tuple[Any, NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the new granularity, and the old scale and the channel of each new scale; None if no granularity fits."""
    channels = np.arange(shape[axis])
    match granularity:
        case PerTensor():
            return PerChannel(axis=axis), np.zeros(shape[axis], np.int64), channels
        case PerChannel(axis=own) if own == axis:
            return granularity, channels, channels
        case PerGroup(axis=own) if own == axis:
            count = granularity.count(shape)
            return granularity, np.arange(count), np.arange(count) // (count // max(shape[axis], 1) or 1)
    return None


def _along(values: NDArray[Any], axis: int, dims: int) -> NDArray[Any]:
    form = [1] * dims
    form[axis] = -1
    return values.reshape(form)
