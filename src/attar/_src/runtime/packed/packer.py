"""Packed weights in a graph that is lowered: products with one row or with any number of them, and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from attar._src.core.operators import INTEGER_KERNELS
from attar._src.core.scheme import Shape
from attar._src.runtime.builder import Builder, node_attributes
from attar._src.runtime.packed.blocks import BITS, Blocks, blocks_of, packed_lookup, packed_product
from attar._src.runtime.packed.single_row import pays_for_single_rows
from attar._src.runtime.weights import Weights

#: From so many elements on a weight is packed for any number of rows: 256 KiB in float32.
_SMALL = 1 << 16
#: From so many on it is packed for a single row: a choice takes 2 microseconds, and such a row 40 in float32.
_LARGE = 1 << 19
#: If all weights of a graph have fewer elements, 16 MiB in float32, caches hold them, and a row gains nothing.
_CACHED = 1 << 22
_OPERATORS = frozenset({"MatMul", "Gemm"})


class Packing(NamedTuple):
    """Which weights stay packed.

    Attributes:
        elements: from so many elements on.
        together: if the weights that a graph multiplies by have so many elements in all.
        single: only for single rows, and only if this machine is faster with it; float32 for more rows.
        shapes: of values whose sizes are fixed, by name.
    """

    elements: int = _SMALL
    together: int = 0
    single: bool = False
    shapes: Mapping[str, Shape] = MappingProxyType({})

    @classmethod
    def of_single_rows(cls, shapes: Mapping[str, Shape]) -> Packing:
        """Return the packing that saves time."""
        return cls(_LARGE, _CACHED, True, shapes)


class _Operands(NamedTuple):
    """What an operator reads beside its data: a matrix of a shape in blocks of a size."""

    inputs: list[str]
    shape: tuple[int, ...]
    size: int
    bits: int


class Packer:
    """Adds products by packed weights to a graph that is lowered; each weight is packed once."""

    def __init__(self, build: Builder, weights: Weights, graph: onnx.GraphProto, packing: Packing | None) -> None:
        self._build, self._weights, self._packing = build, weights, packing
        # Of a table only a few rows are read.
        read = {name for node in graph.node if node.op_type != "Gather" for name in node.input}
        read_elements = sum(math.prod(shape) for name, shape in weights.shapes.items() if name in read)
        if packing is not None and read_elements < packing.together:
            self._packing = None
        self._operands: dict[tuple[str, int], _Operands | None] = {}
        self._tables: dict[str, _Operands | None] = {}
        self._zeros: dict[str, str] = {}

    def multiply(self, node: onnx.NodeProto, data: Callable[[], str], real: Callable[[str], str]) -> str:
        """Add a product by a packed weight, if that is wanted and exact.

        Args:
            node: the product.
            data: adds the real numbers that it multiplies and returns their name.
            real: does so for a weight or bias.

        Returns:
            What was done; empty if nothing was.
        """
        packing = self._packing
        if packing is None or node.op_type not in _OPERATORS or node.input[1] not in self._weights:
            return ""
        value, name, *rest = node.input
        known = packing.shapes.get(value)
        rows = None if known is None else math.prod(known[:-1])
        bias = [each for each in rest if each]
        if packing.single and rows not in (None, 1):
            return ""
        operands = self._packed(node, packing) if all(map(self._is_vector, bias)) else None
        if operands is None:
            return ""
        bias, numbers = [real(each) for each in bias], data()
        places = [numbers, *operands.inputs, *([""] * (4 - len(operands.inputs)) if bias else []), *bias]
        packed = packed_product(places, node.output[0], node.name, shape=operands.shape, size=operands.size)
        if packing.single and rows is None:
            self._choose(packed, node, [numbers, real(name), *bias], operands.shape[1])
            return "packed for one row, float32 for more"
        self._build.add(packed)
        return "packed"

    def look_up(self, node: onnx.NodeProto, real: Callable[[str], str]) -> str:
        """Add rows of a packed table of up to 8 bits, if that is wanted; they are equal to those in float32.

        Args:
            node: the operator that reads the table.
            real: adds the indices, if they are a weight, and returns their name.

        Returns:
            What was done; empty if nothing was.
        """
        packing, name = self._packing, node.input[0]
        if packing is None or packing.single or node.op_type != "Gather" or name not in self._weights:
            return ""
        shape = self._weights.shapes[name]
        if len(shape) != 2 or node_attributes(node).get("axis", 0) != 0 or math.prod(shape) < packing.elements:
            return ""
        if name not in self._tables:
            fit = (4, 8) if shape[1] % 2 == 0 else (8,)
            found = filter(None, (blocks_of(self._weights, name, 0, bits) for bits in fit))
            self._tables[name] = self._table(name, next(found, None))
        table = self._tables[name]
        if table is None:
            return ""
        inputs = [table.inputs[0], self._in_range(real(node.input[1]), shape[0], name), *table.inputs[1:]]
        self._build.add(packed_lookup(inputs, node.output[0], node.name, size=table.size, bits=table.bits))
        return "packed"

    def _in_range(self, indices: str, rows: int, table: str) -> str:
        """Return int64 indices, which ONNX Runtime refuses out of range: GatherBlockQuantized reads zeros there."""
        zeros = f"{table}_rows"
        if zeros not in self._zeros:
            self._zeros[zeros] = self._build.initializer(zeros, np.zeros(rows, np.int64))
        wide = self._build.node("Cast", [indices], self._build.fresh(f"{zeros}_wide"), to=onnx.TensorProto.INT64)
        zero = self._build.node("Gather", [self._zeros[zeros], wide], self._build.fresh(f"{zeros}_zero"))
        return self._build.node("Add", [wide, zero], self._build.fresh(f"{zeros}_index"))

    def _table(self, name: str, blocks: Blocks | None) -> _Operands | None:
        """Add the initializers of a packed table."""
        if blocks is None:
            return None
        codes = self._build.initializer(f"{name}_packed", blocks.packed(blocks.codes))
        return _Operands([codes, *self._scales(name, blocks)], blocks.codes.shape, blocks.size, blocks.bits)

    def _is_vector(self, bias: str) -> bool:
        """Return whether a bias is constant, with a number for each output."""
        array = self._weights.array(bias) if bias in self._weights else self._build.constant(bias)
        return array is not None and array.ndim == 1 and array.size > 1

    def _packed(self, node: onnx.NodeProto, packing: Packing) -> _Operands | None:
        """Return the packed weight of a product, None if it should not be, or no packed one is the same matrix."""
        name, attributes, kernel = node.input[1], node_attributes(node), INTEGER_KERNELS[node.op_type]
        axis, shape = kernel.axis(attributes), self._weights.shapes[name]
        if math.prod(shape) < packing.elements or kernel.refusal(node.op_type, attributes, len(shape)):
            return None
        if (name, axis) not in self._operands:
            blocks = blocks_of(self._weights, name, axis, BITS)
            # The measurement takes longer than all else and stands last.
            right = blocks is not None and (not packing.single or pays_for_single_rows())
            self._operands[name, axis] = self._kept(name, axis, blocks) if blocks and right else None
        return self._operands[name, axis]

    def _kept(self, name: str, axis: int, blocks: Blocks) -> _Operands:
        """Add the initializers of a packed factor."""
        shape = self._weights.shapes[name]
        inputs = [self._build.initializer(f"{name}_packed", blocks.of_factor), *self._scales(name, blocks)]
        return _Operands(inputs, (shape[axis], shape[1 - axis]), blocks.size, blocks.bits)

    def _scales(self, name: str, blocks: Blocks) -> list[str]:
        """Add the scales and, of an asymmetric grid, the zero points of packed codes."""
        zero = None if blocks.zero_point is None else blocks.packed(blocks.zero_point)
        parts = (("scale", blocks.scale), ("zero_point", zero))
        return [self._build.initializer(f"{name}_{part}", array) for part, array in parts if array is not None]

    def _choose(self, packed: onnx.NodeProto, node: onnx.NodeProto, inputs: list[str], row: int) -> None:
        """Add both products behind a condition: whether the data have as many elements as a row."""
        build, out = self._build, node.output[0]
        size = build.node("Size", inputs[:1], build.fresh(f"{out}_size"))
        one = build.scalar(np.array(row, np.int64), "row")
        single = build.node("Equal", [size, one], build.fresh(f"{out}_single"))
        dense = onnx.NodeProto()
        dense.CopyFrom(node)
        dense.input[:] = inputs
        branches = {"then_branch": self._branch(packed), "else_branch": self._branch(dense)}
        build.node("If", [single], out, **branches)

    def _branch(self, node: onnx.NodeProto) -> onnx.GraphProto:
        """Return a graph of one node, whose inputs are those of the graph around it."""
        node.output[0] = self._build.fresh(f"{node.output[0]}_branch")
        made = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        return helper.make_graph([node], node.output[0], [], [made])
