"""Dynamic nodes of a lowered graph: uint8 codes made as they are read, and their products with int8 weights.

The operators are standard ONNX, in the form that ONNX Runtime fuses into ``DynamicQuantizeMatMul``, or into
``MatMulIntegerToFloat`` behind one ``DynamicQuantizeLinear`` where several nodes read one value. Where rows are scaled,
each is divided by its largest magnitude before, and its products are multiplied by that before the bias is added: the
kernels in between are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from attar._src.core.operators import LEAST_SIZE
from attar._src.runtime.accumulator import may_saturate
from attar._src.runtime.builder import Builder
from attar._src.runtime.grid import Grid
from attar._src.runtime.weights import Int8Weight

#: A grid with the largest distances of a code from its zero point, whatever the data: 255.
ANY_CODES = Grid(1.0, 0, 0, 255)
#: Version of the standard operators from which on ReduceMax reads its axes.
_AXES_ARE_READ = 18


class DynamicCodes(NamedTuple):
    """The names of the uint8 codes of a value, their scale and zero point, and the sizes of rows, empty without."""

    codes: str
    scale: str
    zero_point: str
    size: str = ""

    def real(self, build: Builder, value: str) -> str:
        """Add the real numbers of the codes of ``value`` and return their name."""
        real = build.node("DequantizeLinear", self[:3], build.fresh(f"{value}_dynamic_real"))
        return build.node("Mul", [real, self.size], build.fresh(f"{value}_dynamic_row_real")) if self.size else real


class WeightCodes(NamedTuple):
    """The names of the codes of a weight, ``(in, out)``, of their zero point, and of their scales."""

    codes: str
    zero_point: str
    scale: str


def quantize_as_read(build: Builder, real: str, value: str, *, rows: bool = False) -> DynamicCodes:
    """Add the codes of ``value``, whose real numbers are called ``real``; ``rows``: of rows over their sizes."""
    size = ""
    if rows:
        size = _row_sizes(build, real, value)
        real = build.node("Div", [real, size], build.fresh(f"{value}_over_size"))
    codes, scale, zero = (build.fresh(f"{value}_dynamic_{part}") for part in ("codes", "scale", "zero_point"))
    made = helper.make_node("DynamicQuantizeLinear", [real], [codes, scale, zero], name=build.fresh(f"{value}_dynamic"))
    build.add(made)
    return DynamicCodes(codes, scale, zero, size)


def _row_sizes(build: Builder, real: str, value: str) -> str:
    """Add the largest magnitude of each row, ``(..., 1)``, at least ``LEAST_SIZE``, and return its name."""
    last, first, second = (build.scalar(np.array([at], np.int64), f"axis_{at}") for at in (-1, 0, 1))
    inputs, axes = [build.node("Abs", [real], build.fresh(f"{value}_magnitude"))], {"axes": [-1]}
    if build.opset >= _AXES_ARE_READ:
        inputs, axes = [*inputs, last], {}
    largest = build.node("ReduceMax", inputs, build.fresh(f"{value}_largest"), keepdims=1, **axes)
    # Of a batch of 0, ONNX Runtime gives rows as long as they were.
    largest = build.node("Slice", [largest, first, second, last], build.fresh(f"{value}_largest_of_rows"))
    least = build.scalar(np.array(LEAST_SIZE, np.float32), "least_size")
    return build.node("Max", [largest, least], build.fresh(f"{value}_row_size"))


def weight_codes(build: Builder, name: str, weight: Int8Weight, axis: int) -> WeightCodes:
    """Add a weight whose output channels lie along ``axis``: int8, or uint8 shifted by 128 if int8 may saturate.

    Products of uint8 by uint8 are exact on every processor and in every runtime that reads an export.
    """
    codes: NDArray[Any] = np.ascontiguousarray(weight.codes if axis else weight.codes.T)
    if may_saturate(weight, ANY_CODES, axis):
        codes = (codes.astype(np.int16) + 128).astype(np.uint8)
    zero = np.array(128 if codes.dtype == np.uint8 else 0, codes.dtype)
    parts: dict[str, NDArray[Any]] = {"codes": codes, "zero_point": zero, "scale": weight.scale}
    return WeightCodes(*(build.initializer(f"{name}_{part}", array) for part, array in parts.items()))


def dynamic_product(
    build: Builder, node: onnx.NodeProto, codes: DynamicCodes, weight: WeightCodes, bias: str | None
) -> None:
    """Add ``size * scale * weight.scale * sum (codes - zero_point) weight.codes + bias`` as ``node``."""
    out = node.output[0]
    sums, real, step = (build.fresh(f"{out}_{part}") for part in ("sums", "counted", "step"))
    product = helper.make_node(
        "MatMulInteger", [codes.codes, weight.codes, codes.zero_point, weight.zero_point], [sums], name=node.name
    )
    build.add(product)
    build.node("Cast", [sums], real, to=TensorProto.FLOAT)
    build.node("Mul", [codes.scale, weight.scale], step)
    factors = [step, codes.size] if codes.size else [step]
    for left, factor in zip(range(len(factors) - 1, -1, -1), factors, strict=True):
        last = not left and bias is None
        real = build.node("Mul", [real, factor], out if last else build.fresh(f"{out}_scaled"))
    if bias is not None:
        build.node("Add", [real, bias], out)
