"""Compressed tensors: frozen dataclasses of numpy arrays; ``.dense()`` returns their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import SpecError
from attar._src.core.float16 import HALF_TYPES, check_exact, from_half
from attar._src.core.scheme import Granularity, Scheme, Shape

#: Element types in files and specs. numpy has no bfloat16: ``bf16`` arrays hold its bits as uint16.
DTYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
    "i64": np.dtype("<i8"),
    "i32": np.dtype("<i4"),
    "i16": np.dtype("<i2"),
    "i8": np.dtype("i1"),
    "u8": np.dtype("u1"),
    "bool": np.dtype("?"),
}


@dataclass(frozen=True, eq=False)
class Dense:
    """The values themselves. ``dtype`` is a key of :data:`DTYPES`."""

    data: NDArray[Any]
    dtype: str = "f32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.data.dtype != DTYPES[self.dtype]:
            raise SpecError(f"a dense tensor of type {self.dtype!r} cannot hold an array of {self.data.dtype}")

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.data.shape

    def dense(self) -> NDArray[Any]:
        """Return the values, floating types widened to float32."""
        return from_half(self.data, self.dtype) if self.dtype in HALF_TYPES else self.data


@dataclass(frozen=True, eq=False)
class Quantized:
    """Codes on an affine grid: ``dense() = scale * (codes - zero_point)`` in float32.

    Attributes:
        codes: int8 or uint8 (``scheme.code_dtype``), the tensor's shape, within ``[scheme.qmin, scheme.qmax]``.
        scale: float32, ``(scheme.granularity.count(shape),)``, finite and positive.
        zero_point: uint8 of the same shape as ``scale``; None for symmetric schemes.
        scale_dtype: the type of stored scales, ``f32``, ``f16`` or ``bf16``; it must represent every scale exactly.
    """

    codes: NDArray[np.int8] | NDArray[np.uint8]
    scale: NDArray[np.float32]
    scheme: Scheme
    zero_point: NDArray[np.uint8] | None = None
    scale_dtype: str = "f32"

    def __post_init__(self) -> None:
        count = self.scheme.granularity.count(self.codes.shape)
        if self.scale.shape != (count,) or self.scale.dtype != np.float32:
            raise SpecError(f"expected {count} float32 scales, got {self.scale.dtype}{self.scale.shape}")
        if self.codes.dtype != self.scheme.code_dtype:
            raise SpecError(f"expected codes of {self.scheme.code_dtype}, got {self.codes.dtype}")
        if self.scheme.symmetric != (self.zero_point is None):
            raise SpecError("zero points belong to asymmetric schemes and only to them")
        if (zero := self.zero_point) is not None and (
            zero.shape != (count,) or zero.dtype != np.uint8 or (zero > self.scheme.qmax).any()
        ):
            raise SpecError(f"expected {count} uint8 zero points within 0..{self.scheme.qmax}")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise SpecError("a scale is not finite and positive")
        check_exact(self.scale_dtype, self.scale)
        if self.codes.size and (int(self.codes.min()) < self.scheme.qmin or int(self.codes.max()) > self.scheme.qmax):
            raise SpecError(f"a code lies outside {self.scheme.qmin}..{self.scheme.qmax}")

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.codes.shape

    def dense(self) -> NDArray[np.float32]:
        """Return the values, float32 (:func:`dequantize`)."""
        return dequantize(self.codes, self.scale, self.zero_point, self.scheme.granularity)


@dataclass(frozen=True, eq=False)
class Codebook:
    """Indices into a table of points: ``dense() = scale * points[codes] + offset`` in float32.

    In Polino et al. 2018, section 2, ``scale`` and ``offset`` are a bucket's range and minimum.

    Attributes:
        codes: uint8, the tensor's shape, each below ``len(points)``.
        points: float32, ``(levels,)``, at most 256, finite.
        scale: float32, ``(granularity.count(shape),)``, finite.
        offset: float32 of the same shape, finite.
        granularity: which elements share a scale and an offset.
        scale_dtype: the type of stored scales and offsets, as in :class:`Quantized`.
    """

    codes: NDArray[np.uint8]
    points: NDArray[np.float32]
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    granularity: Granularity
    scale_dtype: str = "f32"

    def __post_init__(self) -> None:
        count = self.granularity.count(self.codes.shape)
        if self.codes.dtype != np.uint8 or self.points.ndim != 1 or not 1 <= self.points.size <= 256:
            raise SpecError("a codebook has uint8 codes and 1 to 256 points")
        for name, array in (("scale", self.scale), ("offset", self.offset)):
            if array.shape != (count,) or array.dtype != np.float32 or not np.isfinite(array).all():
                raise SpecError(f"expected {count} finite float32 values of {name}, got {array.dtype}{array.shape}")
        if self.points.dtype != np.float32 or not np.isfinite(self.points).all():
            raise SpecError("the points of a codebook must be finite float32 values")
        check_exact(self.scale_dtype, self.scale, self.offset)
        if self.codes.size and int(self.codes.max()) >= self.points.size:
            raise SpecError(f"a code is not below the number of points, {self.points.size}")

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.codes.shape

    def dense(self) -> NDArray[np.float32]:
        """Return the values, float32."""
        index = self.granularity.index(self.shape)
        with np.errstate(over="ignore"):  # overflow gives infinity
            return np.asarray(self.scale[index] * self.points[self.codes] + self.offset[index], np.float32)


@dataclass(frozen=True, eq=False)
class Sparse:
    """Values where a mask is set, zero elsewhere; for pruned tensors whose grid lacks zero.

    Attributes:
        mask: bool, the tensor's shape.
        values: a compressed tensor of shape ``(mask.sum(),)``, in C order.
    """

    mask: NDArray[np.bool_]
    values: Dense | Quantized | Codebook

    def __post_init__(self) -> None:
        if self.mask.dtype != np.bool_ or self.values.shape != (int(self.mask.sum()),):
            raise SpecError(f"a mask with {int(self.mask.sum())} set elements got values of shape {self.values.shape}")

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.mask.shape

    def dense(self) -> NDArray[Any]:
        """Return the values, zero where the mask is not set."""
        values = self.values.dense()
        out = np.zeros(self.shape, values.dtype)
        out[self.mask] = values
        return out


CompressedTensor: TypeAlias = Dense | Quantized | Codebook | Sparse


def dequantize(
    codes: NDArray[Any], scale: NDArray[np.float32], zero_point: NDArray[Any] | None, granularity: Granularity
) -> NDArray[np.float32]:
    """Return ``scale * (codes - zero_point)`` in float32: an integer difference and one rounded product.

    Args:
        codes: integers of any shape.
        scale: float32, ``(granularity.count(codes.shape),)``.
        zero_point: integers of that shape, or None for zero.
        granularity: which elements share a scale.

    Example:
        >>> dequantize(np.array([[-3, 7]]), np.array([0.5], np.float32), None, Scheme(bits=4).granularity).tolist()
        [[-1.5, 3.5]]
    """
    index = granularity.index(codes.shape)
    values = np.array(codes, np.float32)  # differences of 8-bit integers are exact; in place, so that memory holds one
    if zero_point is not None:
        values -= zero_point.astype(np.float32)[index]
    with np.errstate(over="ignore"):  # overflow gives infinity
        values *= scale[index]
    return values


def round_to_grid(
    values: NDArray[Any], scale: NDArray[np.float32], zero_point: NDArray[np.uint8] | None, scheme: Scheme
) -> Quantized:
    """Round values to the nearest point of a grid with known scales; the exact inverse of :func:`dequantize`.

    ``codes = clip(round(values / scale) + zero_point, qmin, qmax)`` in float32, rounding half to even.

    Raises:
        SpecError: a value is not finite, or scale or zero point does not fit the scheme (:class:`Quantized`).
    """
    finite = int(np.isfinite(values).sum())
    if finite < values.size:
        raise SpecError(f"{values.size - finite} of {values.size} values are not finite and cannot be quantized")
    index = scheme.granularity.index(values.shape)
    codes = np.rint(values.astype(np.float32) / scale[index])
    if zero_point is not None:
        codes = codes + zero_point[index]
    codes = np.clip(codes, scheme.qmin, scheme.qmax).reshape(values.shape)
    return Quantized(codes.astype(scheme.code_dtype), scale, scheme, zero_point)
