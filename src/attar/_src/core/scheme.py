"""Scheme: the grid a tensor is quantized to, without its numbers. A real value r is stored as an integer code q,

    q = clip(round(r / S) + Z, qmin, qmax)        r' = S (q - Z)

with scale S and zero point Z, rounding half to even. A tensor of shape ``s`` with ``n`` elements has


| granularity        | scales and zero points                        | element i belongs to         |
|--------------------|-----------------------------------------------|------------------------------|
| tensor             | 1                                             | 0                            |
| channel (axis)     | s[axis]                                       | its index along axis         |
| group (axis, size) | s[axis] * ceil((n / s[axis]) / size)          | channel, then run of ``size``|
| bucket (size)      | ceil(n / size)                                | flat index // size           |
| block (sizes b)    | product of s[k] / b[k] over the axes k        | its block, in C order        |
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.core.spec import Spec

Shape = tuple[int, ...]


class PerTensor(Spec):
    """One scale for the whole tensor."""

    kind: Literal["tensor"] = "tensor"

    def count(self, shape: Shape) -> int:
        """Return the number of scales: 1."""
        return 1

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return zeros of shape ``(1,) * ndim``, which broadcast against the tensor."""
        return np.zeros((1,) * len(shape), np.int64)


class PerChannel(Spec):
    """One scale per index along ``axis`` (0: output channels of convolutions and linear layers)."""

    kind: Literal["channel"] = "channel"
    axis: int = Field(default=0, ge=0, lt=16)

    def count(self, shape: Shape) -> int:
        """Return the number of scales: the length of ``axis``."""
        return _length(shape, self.axis)

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return each element's scale index, broadcastable: ``axis=0`` of (C, I, kH, kW) -> (C, 1, 1, 1)."""
        form = [1] * len(shape)
        form[self.axis] = _length(shape, self.axis)
        return np.arange(form[self.axis], dtype=np.int64).reshape(form)


class PerGroup(Spec):
    """One scale per run of ``size`` elements inside a channel; the last run of a channel may be shorter."""

    kind: Literal["group"] = "group"
    axis: int = Field(default=0, ge=0, lt=16)
    size: int = Field(ge=1)

    def count(self, shape: Shape) -> int:
        """Return the number of scales: channels times groups per channel."""
        return _length(shape, self.axis) * self._groups(shape)

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return each element's scale index in the tensor's shape.

        Example:
            >>> PerGroup(size=2).index((2, 3)).tolist()
            [[0, 0, 1], [2, 2, 3]]
        """
        channels = np.arange(_length(shape, self.axis), dtype=np.int64)
        rest = shape[: self.axis] + shape[self.axis + 1 :]
        inside = np.arange(math.prod(rest), dtype=np.int64) // self.size
        flat = channels[:, None] * self._groups(shape) + inside
        return np.ascontiguousarray(np.moveaxis(flat.reshape(len(channels), *rest), 0, self.axis))

    def _groups(self, shape: Shape) -> int:
        return -(-math.prod(shape[: self.axis] + shape[self.axis + 1 :]) // self.size)


class PerBucket(Spec):
    """One scale per ``size`` consecutive elements of the flat tensor (Polino et al. 2018, section 2.1)."""

    kind: Literal["bucket"] = "bucket"
    size: int = Field(default=256, ge=1)

    def count(self, shape: Shape) -> int:
        """Return the number of scales: ``ceil(elements / size)``."""
        return -(-math.prod(shape) // self.size)

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return each element's scale index in the tensor's shape: ``size=2`` on (2, 3) -> [[0, 0, 1], [1, 2, 2]]."""
        return (np.arange(math.prod(shape), dtype=np.int64) // self.size).reshape(shape)


class PerBlock(Spec):
    """One scale per block of a tensor cut along every axis; for output channels that are numbered by several axes.

    A transposed convolution ``(8, 3, 4, 4)`` in 2 groups has 2 x 3 output channels: sizes ``(4, 1, 4, 4)``. Experts
    ``(E, in, out)`` have E x out: ``(1, in, 1)``.

    Attributes:
        sizes: length of a block along each axis; it must divide the tensor's.
    """

    kind: Literal["block"] = "block"
    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=16)]

    def count(self, shape: Shape) -> int:
        """Return the number of scales: the number of blocks."""
        return math.prod(self._blocks(shape))

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return each element's scale index, broadcastable.

        Example:
            >>> PerBlock(sizes=(2, 1, 5)).index((4, 2, 5)).reshape(4, 2).tolist()
            [[0, 1], [0, 1], [2, 3], [2, 3]]
        """
        blocks = self._blocks(shape)
        flat = np.arange(math.prod(blocks), dtype=np.int64).reshape(blocks)
        for axis, (size, number) in enumerate(zip(self.sizes, blocks, strict=True)):
            flat = flat if number == 1 else flat.repeat(size, axis)
        return flat

    def _blocks(self, shape: Shape) -> Shape:
        """Return the number of blocks along each axis."""
        if len(shape) != len(self.sizes) or any(length % size for length, size in zip(shape, self.sizes, strict=True)):
            raise SpecError(
                f"blocks of {self.sizes} do not fit a tensor of shape {shape}; use one size for each axis, which "
                "divides it"
            )
        return tuple(length // size for length, size in zip(shape, self.sizes, strict=True))


Granularity = Annotated[PerTensor | PerChannel | PerGroup | PerBucket | PerBlock, Field(discriminator="kind")]


class Scheme(Spec):
    """An affine integer grid.

    Attributes:
        bits: width of a code, 1 to 8.
        symmetric: codes are signed and the zero point is 0; otherwise codes are unsigned with a stored zero point.
        narrow_range: drop the most negative code of a symmetric grid (4 bits: -7 to 7, not -8 to 7), so that codes can
            be negated, as folding a negative batch-norm factor needs.
        granularity: which elements share a scale.
        power_of_two: scales are powers of two, so that rescaling is a shift. A file does not say so: it has the scales.
    """

    bits: int = Field(ge=1, le=8)
    symmetric: bool = True
    narrow_range: bool = True
    granularity: Granularity = PerChannel()
    power_of_two: bool = False

    @property
    def qmin(self) -> int:
        """The smallest code."""
        if not self.symmetric:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.narrow_range and self.bits > 1 else 0)

    @property
    def qmax(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1 if self.symmetric else (1 << self.bits) - 1

    @property
    def levels(self) -> int:
        """The number of codes."""
        return self.qmax - self.qmin + 1

    @property
    def code_dtype(self) -> np.dtype[np.int8] | np.dtype[np.uint8]:
        """The numpy type of codes: int8 for symmetric grids, uint8 for asymmetric ones."""
        return np.dtype(np.int8) if self.symmetric else np.dtype(np.uint8)


def _length(shape: Shape, axis: int) -> int:
    if axis >= len(shape):
        raise SpecError(f"scales along axis {axis} do not fit a tensor of shape {shape}; use axis < {len(shape)}")
    return shape[axis]
