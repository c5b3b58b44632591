"""Scheme: the grid a tensor is quantized to, never how its scales were found.

Notation (``docs/notation.md``): a real value r is stored as an integer code q,

    q = clip(round(r / S) + Z, qmin, qmax)        r' = S (q - Z)

with S the scale and Z the zero point, rounding half to even. Some texts write round(r/S) - Z: the other sign of Z.

Which parameters a granularity has for a tensor of shape ``s`` with ``n`` elements:

| granularity        | scales and zero points                        | element i belongs to         |
|--------------------|-----------------------------------------------|------------------------------|
| tensor             | 1                                             | 0                            |
| channel (axis)     | s[axis]                                       | its index along axis         |
| group (axis, size) | s[axis] * ceil((n / s[axis]) / size)          | channel, then run of ``size``|
| bucket (size)      | ceil(n / size)                                | flat index // size           |
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
        """Return how many scales a tensor of this shape has: 1."""
        return 1

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return the parameter each element belongs to, shape ``(1,) * ndim`` (broadcasts against the tensor)."""
        return np.zeros((1,) * len(shape), np.int64)


class PerChannel(Spec):
    """One scale for each index along ``axis`` (0 is the output channel of convolutions and linear layers)."""

    kind: Literal["channel"] = "channel"
    axis: int = Field(default=0, ge=0, lt=16)

    def count(self, shape: Shape) -> int:
        """Return how many scales a tensor of this shape has: its length along ``axis``."""
        return _length(shape, self.axis)

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return the parameter each element belongs to, shaped to broadcast against the tensor."""
        form = [1] * len(shape)
        form[self.axis] = _length(shape, self.axis)
        return np.arange(form[self.axis], dtype=np.int64).reshape(form)


class PerGroup(Spec):
    """One scale for each run of ``size`` elements inside a channel; the last run of a channel may be shorter."""

    kind: Literal["group"] = "group"
    axis: int = Field(default=0, ge=0, lt=16)
    size: int = Field(ge=1)

    def count(self, shape: Shape) -> int:
        """Return how many scales a tensor of this shape has: channels times groups in a channel."""
        channels = _length(shape, self.axis)
        return channels * self._groups(shape, channels)

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return the parameter each element belongs to, in the tensor's own shape."""
        channels = _length(shape, self.axis)
        groups = self._groups(shape, channels)
        rest = tuple(n for axis, n in enumerate(shape) if axis != self.axis)
        inside = np.arange(math.prod(rest), dtype=np.int64) // self.size
        flat = np.arange(channels, dtype=np.int64)[:, None] * groups + inside[None, :]
        return np.ascontiguousarray(np.moveaxis(flat.reshape(channels, *rest), 0, self.axis))

    def _groups(self, shape: Shape, channels: int) -> int:
        return -(-math.prod(shape) // channels // self.size) if channels else 0


class PerBucket(Spec):
    """One scale for each chunk of ``size`` consecutive elements of the flat tensor (Polino et al. 2018, sec. 2.1)."""

    kind: Literal["bucket"] = "bucket"
    size: int = Field(default=256, ge=1)

    def count(self, shape: Shape) -> int:
        """Return how many scales a tensor of this shape has: chunks of the flat tensor."""
        return -(-math.prod(shape) // self.size)

    def index(self, shape: Shape) -> NDArray[np.int64]:
        """Return the parameter each element belongs to, in the tensor's own shape."""
        return (np.arange(math.prod(shape), dtype=np.int64) // self.size).reshape(shape)


Granularity = Annotated[PerTensor | PerChannel | PerGroup | PerBucket, Field(discriminator="kind")]


class Scheme(Spec):
    """An affine integer grid.

    Attributes:
        bits: width of a code, 1 to 8.
        symmetric: codes are signed and the zero point is 0; otherwise codes are unsigned with a stored zero point.
        narrow_range: leave out the most negative code of a symmetric grid, so that it mirrors itself
            (then a code may change its sign, as folding a negative batch-norm factor asks).
        granularity: which elements share a scale.
    """

    bits: int = Field(ge=1, le=8)
    symmetric: bool = True
    narrow_range: bool = True
    granularity: Granularity = PerChannel()

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
        """How many codes there are."""
        return self.qmax - self.qmin + 1

    @property
    def code_dtype(self) -> np.dtype[np.int8] | np.dtype[np.uint8]:
        """The numpy type codes are held in: int8 for symmetric grids, uint8 for the others."""
        return np.dtype(np.int8) if self.symmetric else np.dtype(np.uint8)


def _length(shape: Shape, axis: int) -> int:
    if axis >= len(shape):
        raise SpecError(
            f"a scale per index of axis {axis} was asked of a tensor of shape {shape}; use axis < {len(shape)}"
        )
    return shape[axis]
