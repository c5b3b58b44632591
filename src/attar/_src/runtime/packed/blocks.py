"""A matrix as ONNX Runtime's packed operators read it: codes of 4 or 8 bits, and a scale for each block along a row.

``MatMulNBits`` has kernels that sum in float32 for 4 bits alone: with 2 or 8 bits ONNX Runtime 1.31 dequantizes the
whole weight at each run, which takes 10 to 40 times as long as float32 with one row. ``GatherBlockQuantized`` reads 4
and 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from attar._src.runtime.weights import Weights

#: The operators, private to ONNX Runtime.
PACKED, PACKED_TABLE = "MatMulNBits", "GatherBlockQuantized"
_DOMAIN = "com.microsoft"
#: Bits of a factor.
BITS = 4
_FLOAT32_SUMS = 1  # level 4 would round the data to 8 bits
#: Lengths of a block, of equal padding the best one first.
_SIZES = (128, 64, 32, 256, 16)


class Blocks(NamedTuple):
    """A matrix ``(rows, length)``: ``scale (code - zero_point)``, with a scale for each block of ``size`` along a row.

    Attributes:
        codes: uint8, ``(rows, length)``, below ``2**bits``.
        scale: float32, ``(rows, blocks)``; the last block of a row may be shorter.
        zero_point: uint8, ``(rows, blocks)``; None for ``2**(bits - 1)``, the code of 0 of a symmetric grid.
        size: elements of a block.
        bits: 4 or 8.
    """

    codes: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8] | None
    size: int
    bits: int

    @property
    def of_factor(self) -> NDArray[np.uint8]:
        """The codes as ``MatMulNBits`` reads them: ``(rows, blocks, size * bits / 8)``, 0 where a row ends."""
        rows, blocks = self.scale.shape
        missing = blocks * self.size - self.codes.shape[1]
        codes = np.pad(self.codes, ((0, 0), (0, missing))) if missing else self.codes
        return self.packed(codes).reshape(rows, blocks, -1)

    def packed(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return codes or zero points as bytes, those of 4 bits two a byte, the first in the low bits."""
        if self.bits == 8:
            return np.ascontiguousarray(codes)
        if codes.shape[1] % 2:
            codes = np.pad(codes, ((0, 0), (0, 1)))
        pairs: NDArray[Any] = codes[:, ::2] | (codes[:, 1::2] << 4)
        return pairs


def blocks_of(weights: Weights, name: str, axis: int, bits: int) -> Blocks | None:
    """Return a matrix whose rows lie along ``axis`` in blocks, None if its grid has other ones, or more bits."""
    grid = weights.grid(name, bits=bits)
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
    return Blocks(codes, grid.scale[first], None if (zero == 1 << (bits - 1)).all() else zero, size, bits)


def packed_product(inputs: Sequence[str], output: str, name: str, *, shape: Sequence[int], size: int) -> onnx.NodeProto:
    """Return the product of data with a matrix ``shape``, (out, in), in blocks of ``size``, of float32 sums."""
    rows, length = shape
    sizes = {"N": rows, "K": length, "block_size": size, "bits": BITS, "accuracy_level": _FLOAT32_SUMS}
    return _node(PACKED, inputs, output, name, sizes)


def packed_lookup(inputs: Sequence[str], output: str, name: str, *, size: int, bits: int) -> onnx.NodeProto:
    """Return the rows of a table in blocks of ``size``: of codes, indices, scales and maybe zero points."""
    sizes = {"gather_axis": 0, "quantize_axis": 1, "block_size": size, "bits": bits}
    return _node(PACKED_TABLE, inputs, output, name, sizes)


def _node(operator: str, inputs: Sequence[str], output: str, name: str, sizes: Mapping[str, int]) -> onnx.NodeProto:
    node = helper.make_node(operator, inputs, [output], name, domain=_DOMAIN)
    node.attribute.extend(helper.make_attribute(*each) for each in sizes.items())
    return node
