"""Dynamic nodes of a lowered graph: uint8 codes made as they are read, and their products with int8 weights.

The operators are standard ONNX, in the form that ONNX Runtime fuses into ``DynamicQuantizeMatMul``, or into
``MatMulIntegerToFloat`` behind one ``DynamicQuantizeLinear`` where several nodes read one value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from attar._src.runtime.accumulator import may_saturate
from attar._src.runtime.builder import Builder
from attar._src.runtime.grid import Grid
from attar._src.runtime.weights import Int8Weight

#: A grid with the largest distances of a code from its zero point, whatever the data: 255.
ANY_CODES = Grid(1.0, 0, 0, 255)


class DynamicCodes(NamedTuple):
    """The names of the uint8 codes of a value, their scale and their zero point."""

    codes: str
    scale: str
    zero_point: str

    def real(self, build: Builder, value: str) -> str:
        """Add the real numbers of the codes of ``value`` and return their name."""
        return build.node("DequantizeLinear", self, build.fresh(f"{value}_dynamic_real"))


class WeightCodes(NamedTuple):
    """The names of the codes of a weight, ``(in, out)``, of their zero point, and of their scales."""

    codes: str
    zero_point: str
    scale: str


def quantize_as_read(build: Builder, real: str, value: str) -> DynamicCodes:
    """Add the codes of ``value``, whose real numbers are called ``real``."""
    names = DynamicCodes(*(build.fresh(f"{value}_dynamic_{part}") for part in DynamicCodes._fields))
    build.add(helper.make_node("DynamicQuantizeLinear", [real], names, name=build.fresh(f"{value}_dynamic")))
    return names


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
    """Add ``scale * weight.scale * sum (codes - zero_point) weight.codes + bias``, under the name of ``node``."""
    out = node.output[0]
    sums, real, step = (build.fresh(f"{out}_{part}") for part in ("sums", "counted", "step"))
    product = helper.make_node(
        "MatMulInteger", [codes.codes, weight.codes, codes.zero_point, weight.zero_point], [sums], name=node.name
    )
    build.add(product)
    build.node("Cast", [sums], real, to=TensorProto.FLOAT)
    build.node("Mul", [codes.scale, weight.scale], step)
    if bias is None:
        build.node("Mul", [real, step], out)
    else:
        scaled = build.node("Mul", [real, step], build.fresh(f"{out}_scaled"))
        build.node("Add", [scaled, bias], out)
