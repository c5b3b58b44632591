"""Lower a graph of a file to a standard ONNX model that runs in integers where the file allows it.

Eight rules, none of which changes the function:

1. A quantized value becomes a QuantizeLinear to uint8 (signed codes are shifted by 128, which is the same grid), a Clip
   of the codes if the grid is narrower than the type, and one DequantizeLinear for all readers.
2. Rounding to a grid is monotone, so it commutes with monotone operators and data movement: the QuantizeLinear of a
   value moves up through Relu, Clip, MaxPool, Reshape ... to the convolution before them, where ONNX Runtime fuses it.
   Relu and Clip become bounds of the codes, free if they equal the bounds of the type.
3. An operator that only moves data works on the codes.
4. A product of a quantized value and an int8 weight reads the codes of both through DequantizeLinear, and an int32 bias
   if the bias is a multiple of input scale times weight scale.
5. A convolution whose input has no multiple of four channels reads further ones of zeros with weights of zero, which
   lets ONNX Runtime run its direct kernel instead of copying every window (``runtime/fours.py``).
6. Nothing else may become an integer product. ONNX Runtime quantizes weights and biases between DequantizeLinear and
   QuantizeLinear on its own (WeightBiasQuantization), so an operator is inserted in between.
7. A dynamic node reads codes of DynamicQuantizeLinear: a MatMulInteger of uint8 by int8, times both scales, plus the
   bias. ONNX Runtime fuses that into one kernel, or two where several nodes read one value. Of a node that scales
   rows, these are divided before, and its products multiplied behind.
8. A product of real numbers and a weight of up to four bits, and a table, read packed codes if the session wants it
   (``runtime/packed``).

Everything else is dequantized once, here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.artifact.manifest import GraphRecord
from attar._src.artifact.reader import Artifact
from attar._src.core.operators import INTEGER_KERNELS, onnx_types
from attar._src.runtime.accumulator import accumulator_of, may_saturate
from attar._src.runtime.builder import Builder, Lowered, Placement, node_attributes
from attar._src.runtime.dynamic_product import (
    ANY_CODES,
    DynamicCodes,
    WeightCodes,
    dynamic_product,
    quantize_as_read,
    weight_codes,
)
from attar._src.runtime.fours import Fours, missing_channels, with_channels
from attar._src.runtime.grid import (
    FILLS,
    CodedValue,
    Grid,
    data_inputs,
    divides_by_cells_outside,
    grid_of_move,
    plan_grids,
    summed_values,
)
from attar._src.runtime.packed.packer import Packer, Packing
from attar._src.runtime.recurrent.placed import run_recurrent
from attar._src.runtime.rewrite import rewrite
from attar._src.runtime.weights import Int8Weight, Weights

_PRODUCTS = onnx_types(lambda operator: operator.kind in ("layer", "product"))
# Operators that read no values, only the shape, which codes have as well.
_SHAPES = frozenset({"Shape", "Size"})
_WRITE_CODES = onnx_types(lambda operator: operator.writes_codes)
_LOWEST = np.array(-np.inf, np.float32)


def lower(
    artifact: Artifact,
    graph: str = "main",
    *,
    threads: int = 1,
    model: onnx.ModelProto | None = None,
    floating: bool = False,
    private: bool = False,
    shared: bool = True,
    packing: Packing | None = None,
) -> Lowered:
    """Lower a graph of a file to an ONNX model with weights, in integers where possible.

    Args:
        artifact: the file.
        graph: the graph's name.
        threads: cores on which tensors are decoded.
        model: the graph, where it is parsed already.
        floating: whether to dequantize all weights and round no activation: the same network in float32.
        private: whether a dynamic LSTM becomes ONNX Runtime's own operator, which takes half the time of standard ones.
        shared: whether nodes that multiply by one weight read one copy of its codes. Where ONNX Runtime converts int8
            to uint8, for exact kernels, it fails on shared ones.
        packing: which weights stay packed, by an operator of ONNX Runtime's own; None for none.

    Raises:
        UnknownName: there is no such graph.
        ArtifactError: the graph or a tensor is malformed.
    """
    record = artifact.graph_record(graph)
    model = model or artifact.graph(graph)
    if floating:
        record = record.model_copy(update={"activations": (), "dynamic": ()})
    weights = Weights(artifact, graph, threads=threads)
    return _Lowering(model, record, weights, private=private, shared=shared, packing=packing).run()


class _Lowering:
    """One pass over the nodes, in order."""

    def __init__(
        self,
        model: onnx.ModelProto,
        record: GraphRecord,
        weights: Weights,
        *,
        private: bool,
        shared: bool,
        packing: Packing | None,
    ) -> None:
        self.weights, self.private, self.shared = weights, private, shared
        self.dynamic, self.rows = frozenset(record.dynamic), frozenset(record.rows)
        grids = {activation.value: Grid.of(activation) for activation in record.activations}
        self.graph = (source := rewrite(model, weights.shapes, grids)).graph
        self.build = Builder(source, reserved=weights.shapes)
        self.grids, self.absorbed = plan_grids(self.graph, grids, self.build.constant)
        self.outputs = {value.name for value in self.graph.output}
        self.summed = summed_values(self.graph, self.grids)
        self.codes: dict[str, CodedValue] = {}
        self.read_codes: dict[tuple[str, bool], DynamicCodes] = {}
        self.reals: dict[str, str] = {}
        self.unfused: dict[str, str] = {}
        self.dense: set[str] = set()
        self.int8s: dict[str, str] = {}
        self.fours = Fours(self.build, self.codes)
        self.packer = Packer(self.build, weights, self.graph, packing)
        self.weight_codes: dict[tuple[str, int], WeightCodes] = {}
        self.layers: dict[str, Placement] = {}
        self.dequantized: dict[str, str] = {}
        self.saturating: set[str] = set()

    def run(self) -> Lowered:
        for value in self.graph.input:
            self.quantize(value.name)
        for node in self.graph.node:
            if node.output[0] in self.absorbed:
                self.codes[node.output[0]] = self.codes[node.input[0]]
            elif self.outputs.isdisjoint(node.output) and self.weights.move(node, self.build.constant):
                continue
            elif (grid := grid_of_move(node, self.codes, self.build.constant)) is not None:
                self.move(node, grid)
            elif node.name in self.dynamic:
                self.read_dynamically(node)
            else:
                self.plain(node)
            for value in node.output:
                self.quantize(value)
        bare = self.build.finish()
        return Lowered(bare, self.build.weights, self.layers, self.dequantized, frozenset(self.saturating))

    def quantize(self, value: str) -> None:
        """Quantize a value if it has a grid, and record its codes."""
        grid = self.grids.get(value)
        if grid is None or (value in self.codes and grid.holds(self.codes[value].grid)):
            return
        scale, zero = self.parameters(grid)
        code = self.build.node("QuantizeLinear", [self.real(value), scale, zero], self.build.fresh(f"{value}_codes"))
        if (grid.low, grid.high) != (0, 255):
            ends = [self.build.scalar(np.array(end, np.uint8), "bound") for end in (grid.low, grid.high)]
            code = self.build.node("Clip", [code, *ends], self.build.fresh(f"{value}_clipped"))
        self.codes[value] = CodedValue(code, grid)
        self.reals.pop(value, None)

    def move(self, node: onnx.NodeProto, grid: Grid) -> None:
        """Run an operator that only moves data on the codes."""
        inputs = [self.codes[name].name if name in data_inputs(node) else self.real(name) for name in node.input]
        if node.op_type in FILLS:
            inputs[2:3] = [self.build.scalar(np.array(grid.zero_point, np.uint8), "zero_point")]
        outputs = [self.build.fresh(f"{value}_codes") for value in node.output]
        self.build.copy(node, inputs, outputs)
        for value, code in zip(node.output, outputs, strict=True):
            self.codes[value] = CodedValue(code, grid)
            if value in self.outputs:
                self.build.node("DequantizeLinear", [code, *self.parameters(grid)], value)
                self.reals[value] = value

    def plain(self, node: onnx.NodeProto) -> None:
        """Copy an operator; a product reads int8 weights where it can."""
        inputs, why = list(node.input), f"{node.op_type} reads real numbers"
        product = node.op_type in _PRODUCTS
        # Codes by codes are a product of integers too, exact without a layout of its own.
        integer = product and all(name in self.codes for name in inputs if name)
        read = inputs[:2] if product else inputs
        weight = next((name for name in read if len(self.weights.shapes.get(name, ())) > 1), None)
        if weight is not None:
            form = self.integer_form(node) if product else why
            inputs, why, integer = (inputs, form, False) if isinstance(form, str) else (form, "", True)
            self.layers[node.name] = Placement(self.weights.parts(weight), why)
        if node.op_type in _SHAPES and inputs[0] in self.codes:
            inputs = [self.codes[inputs[0]].name]
        apart = (product and not integer) or divides_by_cells_outside(node)
        data = partial(self.real_apart if apart else self.real, inputs[0])
        if not integer and weight is not None and (packed := self.pack(node, data, partial(self.real, why=why))):
            self.layers[node.name] = Placement(self.weights.parts(weight), f"{why}; {packed}")
            return
        inputs = [data(), *(self.real(name, why) for name in inputs[1:])]
        if not integer or node.output[0] not in self.summed:
            self.build.copy(node, inputs, node.output)
            return
        # ONNX Runtime would fuse the sum into the product and round the addend as a bias.
        raw = self.build.fresh(f"{node.output[0]}_raw")
        self.build.copy(node, inputs, [raw])
        self.build.node("Max", [raw, self.build.scalar(_LOWEST, "lowest")], node.output[0])

    def pack(self, node: onnx.NodeProto, data: Callable[[], str], real: Callable[[str], str]) -> str:
        """Run an operator with a packed weight if that is wanted and right; return what was done."""
        return self.packer.look_up(node, real) if node.op_type == "Gather" else self.packer.multiply(node, data, real)

    def real_apart(self, name: str) -> str:
        """Return the name of a floating-point value that ONNX Runtime does not treat as quantized."""
        return self.keep_unfused(self.real(name)) if name in self.codes else self.real(name)

    def keep_unfused(self, value: str) -> str:
        """Return a dequantized value behind a no-op Max, so that ONNX Runtime does not treat it as quantized."""
        if value not in self.unfused:
            lowest = self.build.scalar(_LOWEST, "lowest")
            self.unfused[value] = self.build.node("Max", [value, lowest], self.build.fresh(f"{value}_apart"))
        return self.unfused[value]

    def integer_form(self, node: onnx.NodeProto) -> list[str] | str:
        """Return the inputs of a product for an integer kernel, or the reason why none can run it."""
        data, name, *rest = node.input
        weight = self.integer_weight(node)
        if isinstance(weight, str):
            return weight
        axis = INTEGER_KERNELS[node.op_type].axis(node_attributes(node))
        if data not in self.codes:
            return f"its input {data!r} is not quantized"
        if node.op_type in _WRITE_CODES and (node.output[0] not in self.grids or node.output[0] in self.outputs):
            return f"its output {node.output[0]!r} is not quantized, as a convolution's has to be"
        bias = None
        if rest and rest[0]:
            bias = self.weights.array(rest[0]) if rest[0] in self.weights else self.build.constant(rest[0])
            if bias is None:
                return "its bias is computed"
        found = accumulator_of(weight, self.codes[data].grid, axis, bias)
        if isinstance(found, str):
            return found
        if may_saturate(weight, self.codes[data].grid, axis, node_attributes(node).get("group", 1)):
            self.saturating.add(node.name)
        more = missing_channels(weight.codes.shape, node_attributes(node).get("group", 1))
        if not (self.shared and name in self.int8s):
            self.int8s[name] = self.scaled(name, with_channels(weight.codes, more), weight.scale, weight.axis)
        inputs = [self.fours.widened(data, more, weight.codes.ndim) if more else data, self.int8s[name]]
        if found.bias is not None:
            inputs.append(self.scaled(rest[0], found.bias, found.step, None if weight.axis is None else 0))
        return inputs

    def integer_weight(self, node: onnx.NodeProto) -> Int8Weight | str:
        """Return the weight of a product as integer kernels read it, or the reason why none can."""
        name, attributes, kernel = node.input[1], node_attributes(node), INTEGER_KERNELS[node.op_type]
        if name not in self.weights:
            return "its weight is the first factor, integer kernels want it second"
        refusal = kernel.refusal(node.op_type, attributes, len(self.weights.shapes[name]))
        return refusal or self.weights.int8(name, kernel.axis(attributes))

    def read_dynamically(self, node: onnx.NodeProto) -> None:
        """Run a dynamic node in integers, or on the real numbers of the codes that it reads."""
        if node.op_type not in _PRODUCTS:
            placed = run_recurrent(self.build, node, self.weights, self.real, private=self.private)
            self.layers[node.name] = Placement(placed.tensors, placed.reason)
            self.dequantized |= dict.fromkeys(placed.dequantized, placed.reason)
            return
        data, name, *rest = node.input
        read = data, node.name in self.rows
        codes = self.read_codes.get(read)
        if codes is None:
            codes = self.read_codes[read] = quantize_as_read(self.build, self.real(data), data, rows=read[1])
        weight = self.integer_weight(node)
        axis = INTEGER_KERNELS[node.op_type].axis(node_attributes(node))
        if not isinstance(weight, str) and isinstance(found := accumulator_of(weight, ANY_CODES, axis, None), str):
            weight = found
        if name in self.weights:
            self.layers[node.name] = Placement(self.weights.parts(name), weight if isinstance(weight, str) else "")
        if isinstance(weight, str):
            real = self.keep_unfused(codes.real(self.build, data))
            self.build.copy(node, [real, *(self.real(each, weight) for each in (name, *rest))], node.output)
            return
        if not (self.shared and (name, axis) in self.weight_codes):
            self.weight_codes[name, axis] = weight_codes(self.build, name, weight, axis)
        bias = self.real(rest[0]) if rest and rest[0] else None
        dynamic_product(self.build, node, codes, self.weight_codes[name, axis], bias)

    def scaled(self, name: str, codes: NDArray[Any], scale: NDArray[np.float32], axis: int | None) -> str:
        """Return the DequantizeLinear of constant codes, with scales along ``axis`` or a single one."""
        shape, along = ((), {}) if axis is None else (scale.shape, {"axis": axis})
        # Zero points are not shared: ONNX Runtime fails on a shared one when it converts int8 weights to uint8.
        parts = {"codes": codes, "scale": scale.reshape(shape), "zero_point": np.zeros(shape, codes.dtype)}
        inputs = [self.build.initializer(f"{name}_{part}", array) for part, array in parts.items()]
        return self.build.node("DequantizeLinear", inputs, self.build.fresh(f"{name}_real"), **along)

    def real(self, name: str, why: str = "it is read as real numbers") -> str:
        """Return the name of the floating-point value of ``name``, adding it if necessary."""
        if name in self.codes and name not in self.reals:
            code, grid = self.codes[name]
            out = self.build.fresh(f"{name}_real")
            self.reals[name] = self.build.node("DequantizeLinear", [code, *self.parameters(grid)], out)
        elif name in self.weights and name not in self.dense:
            self.dense.add(name)
            self.build.put(name, self.weights.array(name))
            for part in self.weights.compressed(name):
                self.dequantized.setdefault(part, why)
        return self.reals.get(name, name)

    def parameters(self, grid: Grid) -> tuple[str, str]:
        scale = self.build.scalar(np.array(grid.scale, np.float32), "scale")
        return scale, self.build.scalar(np.array(grid.zero_point, np.uint8), "zero_point")
