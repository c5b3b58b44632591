"""Input channels of integer convolutions in multiples of four."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.core.scheme import Shape
from attar._src.runtime.builder import node_attributes

#: Channels that the direct kernel of ONNX Runtime reads at once.
_AT_ONCE = 4


def missing_channels(node: onnx.NodeProto, weight: Shape) -> int:
    """Return how many input channels a product lacks for the direct kernel of ONNX Runtime.

    ``MlasConvSym`` wants a multiple of four input channels, as VNNI multiplies four bytes at once; other convolutions
    copy every window into a matrix before they multiply. For 3 channels and 16 filters of 3x3 on 32x32 cells that
    takes 1.5 times as long. One cell a window needs no copy, and groups have a kernel of their own.
    """
    if node.op_type != "Conv" or node_attributes(node).get("group", 1) != 1 or int(np.prod(weight[2:])) == 1:
        return 0
    return -weight[1] % _AT_ONCE


def with_channels(codes: NDArray[Any], more: int) -> NDArray[Any]:
    """Return the weight of a convolution with further input channels of zeros: (8, 3, 5, 5) and 1 to (8, 4, 5, 5)."""
    return np.pad(codes, [(0, 0), (0, more)] + [(0, 0)] * (codes.ndim - 2)) if more else codes
