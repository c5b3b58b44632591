"""Compressed tensors: frozen dataclasses of numpy arrays whose meaning is ``.dense()``.

| class     | holds                                      | dense() is                           |
|-----------|--------------------------------------------|--------------------------------------|
| Dense     | values                                     | the values                           |
| Quantized | codes, scale, zero_point, a Scheme         | scale * (codes - zero_point)         |
| Codebook  | codes, points, scale, offset               | scale * points[codes] + offset       |
| Sparse    | a mask, and the values where it is set     | the values there, zero elsewhere     |

The dequantize equation is written once, in :func:`dequantize`. Everything to its left is integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import SpecError
from attar._src.core.float16 import HALF_TYPES, check_exact, from_half
from attar._src.core.scheme import Granularity, Scheme, Shape

#: Names of element types in files and specs. bf16 is held in numpy as the uint16 of its bits.
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
    """A tensor as it is. ``dtype`` is a key of :data:`DTYPES`; for ``"bf16"`` the array holds the bits as uint16."""

    data: NDArray[Any]
    dtype: str = "f32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.data.dtype != DTYPES[self.dtype]:
            raise SpecError(f"a dense tensor of type {self.dtype!r} was given an array of {self.data.dtype}")

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.data.shape

    def dense(self) -> NDArray[Any]:
        """Return the values: floating types as float32, the others as they are."""
        return from_half(self.data, self.dtype) if self.dtype in HALF_TYPES else self.data


@dataclass(frozen=True, eq=False)
class Quantized:
    """Codes on an affine grid: ``dense() = scale * (codes - zero_point)`` in float32.

    Attributes:
        codes: int8 or uint8 (``scheme.code_dtype``), the tensor's shape, within ``[scheme.qmin, scheme.qmax]``.
        scale: float32, ``(scheme.granularity.count(shape),)``, finite and positive.
        zero_point: uint8 of the same shape as ``scale``; None for symmetric schemes.
        scheme: the grid.
        scale_dtype: the type a file keeps the scales in, ``f32``, ``f16`` or ``bf16``. It must hold every one as it is:
            the equation knows float32 alone.
    """

    codes: NDArray[np.int8] | NDArray[np.uint8]
    scale: NDArray[np.float32]
    scheme: Scheme
    zero_point: NDArray[np.uint8] | None = None
    scale_dtype: str = "f32"

    def __post_init__(self) -> None:
        count = self.scheme.granularity.count(self.codes.shape)
        if self.scale.shape != (count,) or self.scale.dtype != np.float32:
            raise SpecError(f"{count} float32 scales were expected, {self.scale.dtype}{self.scale.shape} arrived")
        if self.codes.dtype != self.scheme.code_dtype:
            raise SpecError(f"codes of {self.scheme.code_dtype} were expected, {self.codes.dtype} arrived")
        if self.scheme.symmetric != (self.zero_point is None):
            raise SpecError("a symmetric scheme has no zero points and an asymmetric one has them")
        if self.zero_point is not None and (
            self.zero_point.shape != (count,)
            or self.zero_point.dtype != np.uint8
            or (self.zero_point > self.scheme.qmax).any()
        ):
            raise SpecError(f"{count} zero points of uint8 within 0..{self.scheme.qmax} were expected")
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
        """Return the dequantized values, float32, in the tensor's shape."""
        return dequantize(self.codes, self.scale, self.zero_point, self.scheme.granularity)


@dataclass(frozen=True, eq=False)
class Codebook:
    """Codes into a table of points: ``dense() = scale * points[codes] + offset`` in float32.

    Polino et al. 2018, section 2: ``scale`` and ``offset`` are a bucket's range and minimum.

    Attributes:
        codes: uint8, the tensor's shape, each below ``len(points)``.
        points: float32, ``(levels,)``, at most 256, finite.
        scale: float32, ``(granularity.count(shape),)``, finite.
        offset: float32 of the same shape, finite.
        granularity: which elements share a scale and an offset.
        scale_dtype: the type a file keeps scales and offsets in, as in :class:`Quantized`.
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
                raise SpecError(
                    f"{count} finite float32 values of {name} were expected, {array.dtype}{array.shape} arrived"
                )
        if self.points.dtype != np.float32 or not np.isfinite(self.points).all():
            raise SpecError("the points of a codebook are finite float32 values")
        check_exact(self.scale_dtype, self.scale, self.offset)
        if self.codes.size and int(self.codes.max()) >= self.points.size:
            raise SpecError(f"a code lies outside the {self.points.size} points")

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.codes.shape

    def dense(self) -> NDArray[np.float32]:
        """Return the values the codes stand for, float32, in the tensor's shape."""
        index = self.granularity.index(self.shape)
        with np.errstate(over="ignore"):  # what float32 cannot hold is an infinity
            return np.asarray(self.scale[index] * self.points[self.codes] + self.offset[index], np.float32)


@dataclass(frozen=True, eq=False)
class Sparse:
    """Values at the places of a mask and zero elsewhere; for values whose own grid has no zero.

    Attributes:
        mask: bool, the tensor's shape.
        values: a one-dimensional compressed tensor of ``mask.sum()`` elements, in C order.
    """

    mask: NDArray[np.bool_]
    values: Dense | Quantized | Codebook

    def __post_init__(self) -> None:
        if self.mask.dtype != np.bool_ or self.values.shape != (int(self.mask.sum()),):
            raise SpecError(f"a mask with {int(self.mask.sum())} places was given values of shape {self.values.shape}")

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.mask.shape

    def dense(self) -> NDArray[Any]:
        """Return the values with zeros where the mask is unset."""
        values = self.values.dense()
        out = np.zeros(self.shape, values.dtype)
        out[self.mask] = values
        return out


CompressedTensor: TypeAlias = Dense | Quantized | Codebook | Sparse


def dequantize(
    codes: NDArray[Any], scale: NDArray[np.float32], zero_point: NDArray[Any] | None, granularity: Granularity
) -> NDArray[np.float32]:
    """Return ``scale * (codes - zero_point)``: the one dequantize equation.

    Integers until the last multiply, which is one float32 product with one rounding.

    Args:
        codes: integers of any shape.
        scale: float32, one for each parameter of ``granularity``.
        zero_point: integers like ``scale``, or None for zero.
        granularity: which elements share a parameter.

    Returns:
        float32 of the shape of ``codes``.
    """
    index = granularity.index(codes.shape)
    centred = codes.astype(np.int32)
    if zero_point is not None:
        centred = centred - zero_point.astype(np.int32)[index]
    with np.errstate(over="ignore"):  # what float32 cannot hold is an infinity
        return np.asarray(centred.astype(np.float32) * scale[index], np.float32).reshape(codes.shape)


def round_to_grid(
    values: NDArray[Any], scale: NDArray[np.float32], zero_point: NDArray[np.uint8] | None, scheme: Scheme
) -> Quantized:
    """Round values to the nearest point of a grid with known scales: the inverse of :func:`dequantize`.

    ``codes = clip(round(values / scale) + zero_point, qmin, qmax)``, rounding half to even, in float32. Values that lie
    on the grid come back exactly.

    Args:
        values: floats of any shape.
        scale: float32, ``(scheme.granularity.count(values.shape),)``.
        zero_point: uint8 like ``scale``; None for symmetric schemes.
        scheme: the grid.

    Raises:
        SpecError: a value is not finite, or the parameters do not fit the scheme.
    """
    if not np.isfinite(values).all():
        bad = int(math.prod(values.shape) - np.isfinite(values).sum())
        raise SpecError(
            f"{bad} of {values.size} values are not finite; a tensor with NaN or infinity cannot be quantized"
        )
    index = scheme.granularity.index(values.shape)
    codes = np.rint(values.astype(np.float32) / scale[index])
    if zero_point is not None:
        codes = codes + zero_point[index]
    codes = np.clip(codes, scheme.qmin, scheme.qmax).reshape(values.shape)
    return Quantized(codes.astype(scheme.code_dtype), scale, scheme, zero_point)
