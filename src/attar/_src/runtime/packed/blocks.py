"""A matrix as ONNX Runtime's ``MatMulNBits`` reads it: 4-bit codes, and a scale for each block along a row.

For other widths (2 and 8 bits) ONNX Runtime 1.31 has no kernel that sums in float32: it dequantizes the whole weight
at each run, which takes 10 to 25 times as long as float32 with one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from attar._src.runtime.weights import Weights

#: The operator, private to ONNX Runtime.
PACKED = "MatMulNBits"
BITS = 4
_FLOAT32_SUMS = 1  # level 4 would round the data to 8 bits
#: Lengths of a block, of equal padding the best one first.
_SIZES = (128, 64, 32, 256, 16)
_MIDDLE = 1 << (BITS - 1)


class Blocks(NamedTuple):
    """A matrix ``(out, in)``: ``scale (code - zero_point)``, with a scale for each block of ``size`` along ``in``.

    Attributes:
        codes: two a byte, the first in the low bits, ``(out, blocks, size / 2)``.
        scale: float32, ``(out, blocks)``.
        zero_point: two a byte, ``(out, ceil(blocks / 2))``; None for 8, the code of 0 of a symmetric grid.
        size: elements of a block; the last one of a row may be shorter in the matrix.
    """

    codes: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8] | None
    size: int


def blocks_of(weights: Weights, name: str, axis: int) -> Blocks | None:
    """Return a matrix whose outputs lie along ``axis`` in blocks, None if its grid has other ones, or more bits."""
    grid = weights.grid(name, bits=BITS)
    if grid is None:
        return None
    codes, which = (grid.codes, grid.which) if axis == 0 else (grid.codes.T, grid.which.T)
    length = codes.shape[1]
    starts = np.flatnonzero((which[:, 1:] != which[:, :-1]).any(axis=0)) + 1
    fit = [size for size in _SIZES if not (starts % size).any()]
    if not fit or not length:
        return None
    size = min(fit, key=lambda each: -(-length // each) * each)
    first = np.broadcast_to(which[:, ::size], (len(codes), -(-length // size)))
    zero = grid.zero_point[first]
    zeros = None if (zero == _MIDDLE).all() else _pairs(zero)
    return Blocks(_rows(codes, size), grid.scale[first], zeros, size)


def _rows(codes: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return codes ``(out, in)`` as bytes ``(out, blocks, size / 2)``; what a row lacks is 0."""
    rows, length = codes.shape
    blocks = -(-length // size)
    if blocks * size != length:
        codes = np.pad(codes, ((0, 0), (0, blocks * size - length)))
    return _pairs(codes).reshape(rows, blocks, size // 2)


def _pairs(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return two codes a byte, ``(rows, ceil(columns / 2))``."""
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    pairs: NDArray[Any] = codes[:, ::2] | (codes[:, 1::2] << BITS)
    return pairs


def packed_product(
    inputs: Sequence[str], output: str, name: str, *, shape: tuple[int, int], size: int
) -> onnx.NodeProto:
    """Return the product of data with a matrix ``shape``, (out, in), in blocks of ``size``, of float32 sums."""
    rows, length = shape
    sizes = {"N": rows, "K": length, "block_size": size, "bits": BITS, "accuracy_level": _FLOAT32_SUMS}
    node = helper.make_node(PACKED, inputs, [output], name, domain="com.microsoft")
    node.attribute.extend(helper.make_attribute(*each) for each in sizes.items())
    return node
