"""Input channels of integer convolutions in multiples of four."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.scheme import Shape
from attar._src.runtime.builder import Builder
from attar._src.runtime.grid import CodedValue

#: Channels that the direct kernel of ONNX Runtime reads at once.
_AT_ONCE = 4


class Fours:
    """Coded values of a graph with further channels of zeros, made once for all readers."""

    def __init__(self, build: Builder, codes: dict[str, CodedValue]) -> None:
        self._build, self._codes = build, codes
        self._made: dict[str, str] = {}

    def widened(self, name: str, more: int, axes: int) -> str:
        """Return the name of a coded value of ``axes`` axes with ``more`` further channels, and record its codes."""
        if name not in self._made:
            code, grid = self._codes[name]
            pads = np.zeros((2, axes), np.int64)
            pads[1, 1] = more
            ends = self._build.scalar(pads.reshape(-1), "pads")
            zero = self._build.scalar(np.array(grid.zero_point, np.uint8), "zero_point")
            out = self._made[name] = self._build.fresh(f"{name}_fours")
            wide = self._build.node("Pad", [code, ends, zero], self._build.fresh(f"{out}_codes"))
            self._codes[out] = CodedValue(wide, grid)
        return self._made[name]


def missing_channels(weight: Shape, groups: int = 1) -> int:
    """Return how many input channels a weight ``(out, in / groups, ...)`` lacks for ONNX Runtime's direct kernel.

    ``MlasConvSym`` wants a multiple of four, as VNNI multiplies four bytes at once; other convolutions copy every
    window into a matrix before they multiply. For 3 channels and 16 filters of 3x3 on 32x32 cells that takes 1.5 times
    as long. A matrix, or one cell a window, needs no copy, and groups have a kernel of their own.
    """
    return 0 if groups != 1 or int(np.prod(weight[2:])) == 1 else -weight[1] % _AT_ONCE


def with_channels(codes: NDArray[Any], more: int) -> NDArray[Any]:
    """Return the weight of a convolution with further input channels of zeros: (8, 3, 5, 5) and 1 to (8, 4, 5, 5)."""
    return np.pad(codes, [(0, 0), (0, more)] + [(0, 0)] * (codes.ndim - 2)) if more else codes
