"""A dynamic GRU or LSTM of standard operators: a product of the whole sequence, and a Scan of its steps.

ONNX Runtime has no dynamic GRU; in this form both products become ``DynamicQuantizeMatMul``. Gates are in floating
point.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from attar._src.runtime.builder import Builder
from attar._src.runtime.dynamic_product import dynamic_product, quantize_as_read, weight_codes
from attar._src.runtime.recurrent.body import CELLS, Body, cut
from attar._src.runtime.recurrent.recurrence import Recurrence
from attar._src.runtime.weights import Int8Rows


def add_scan(build: Builder, made: Recurrence) -> None:
    """Add the nodes of a GRU or LSTM; the product of the sequence, in its first direction, has its name."""
    parts = [_Direction(build, made, place).run() for place in range(made.directions)]
    for place, (name, each) in enumerate(zip(made.outputs, zip(*parts, strict=True), strict=True)):
        if name:
            axis = 0 if place else 1
            axes = build.scalar(np.array([axis]), "axes")
            several = [build.node("Unsqueeze", [part, axes], build.fresh(f"{part}_apart")) for part in each]
            build.node("Concat", several, name, axis=axis)


class _Direction:
    """One direction."""

    def __init__(self, build: Builder, made: Recurrence, place: int) -> None:
        self.build, self.made, self.place = build, made, place
        self.cell = CELLS[made.node.op_type]
        self.widths = [gates * made.hidden for gates in self.cell.parts]
        self.name = made.node.name if place == 0 else build.fresh(f"{made.node.name}_{place}")
        self.backward = made.backward(place)

    def run(self) -> list[str]:
        """Add its nodes; return the names of the sequence ``(time, batch, hidden)`` and of the final states."""
        build, made = self.build, self.made
        gates = self.product(build, self.turned(made.data), 0, self.name)
        starts = [self.start(gates, state) for state in made.states]
        scanned = cut(build, gates, self.widths, axis=2)
        if made.live:
            starts, scanned = starts * 2, [*scanned, made.live]
        finals = [build.fresh(f"{self.name}_state") for _ in starts]
        sequence = build.fresh(f"{self.name}_sequence")
        # Scan turns sequences itself, but not those of examples that end.
        turns = [int(self.backward and not made.live)] * len(scanned)
        scan = helper.make_node(
            "Scan",
            [*starts, *scanned],
            [*finals, sequence],
            name=build.fresh(f"{self.name}_scan"),
            body=self.step(),
            num_scan_inputs=len(scanned),
            scan_input_directions=turns,
            scan_output_directions=turns[:1],
        )
        build.add(scan)
        return [self.turned(sequence), *finals[-len(made.states) :]]

    def turned(self, sequence: str) -> str:
        """Return a sequence in the order of the steps, if Scan does not turn it."""
        if not (self.backward and self.made.live):
            return sequence
        build = self.build
        ends = build.node("Cast", [self.made.lengths], build.fresh(f"{self.name}_ends"), to=TensorProto.INT64)
        out = build.fresh(f"{sequence}_turned")
        return build.node("ReverseSequence", [sequence, ends], out, batch_axis=1, time_axis=0)

    def start(self, gates: str, state: str) -> str:
        """Return an initial state ``(batch, hidden)``."""
        build, out = self.build, self.build.fresh(f"{self.name}_start")
        if state:
            return build.node("Gather", [state, build.scalar(np.array(self.place), "place")], out, axis=0)
        shape = build.node("Shape", [gates], build.fresh(f"{gates}_shape"))
        batch = build.node("Gather", [shape, build.scalar(np.array([1]), "batch")], build.fresh(f"{gates}_batch"))
        width = build.scalar(np.array([self.made.hidden]), "hidden")
        return build.node(
            "ConstantOfShape", [build.node("Concat", [batch, width], build.fresh(f"{gates}_sizes"), axis=0)], out
        )

    def product(self, build: Builder, data: str, half: int, name: str) -> str:
        """Add the product of rounded data and the weights of all gates, plus one half of the biases."""
        made, out = self.made, build.fresh(f"{name}_gates")
        rows = made.of_state if half else made.of_input
        codes = quantize_as_read(build, data, data)
        bias = None
        if made.biases is not None:
            bias = build.initializer(f"{name}_bias", np.split(made.biases[self.place], 2)[half])
        if isinstance(rows, Int8Rows):
            node = helper.make_node("MatMul", [data], [out], name=name)
            dynamic_product(build, node, codes, weight_codes(build, name, rows.direction(self.place), 0), bias)
            return out
        return self.floating_product(build, codes.real(build, data), rows[self.place], bias, name, out)

    def floating_product(
        self, build: Builder, data: str, rows: NDArray[np.float32], bias: str | None, name: str, out: str
    ) -> str:
        """Add the product of real numbers and weights that no integer kernel reads."""
        weight = build.initializer(f"{name}_weight", rows.T)
        product = out if bias is None else build.fresh(f"{name}_product")
        build.add(helper.make_node("MatMul", [data, weight], [product], name=name))
        return product if bias is None else build.node("Add", [product, bias], out)

    def step(self) -> onnx.GraphProto:
        """Return the body: states and what a step reads, to states and what it writes."""
        made, body = self.made, Body(self.build)
        states, kept = ([body.fresh(f"{self.name}_{of}") for _ in made.states] for of in ("before", "kept"))
        read = [body.fresh(f"{self.name}_read") for _ in self.widths]
        gates = self.product(body, states[0], 1, body.fresh(f"{self.name}_recurrent"))
        new = self.cell.step(body, states, read, body.split(gates, self.widths), made.hidden)
        if not made.live:
            return body.graph([*states, *read], [*new, body.op("Identity", new[0])])
        live = body.fresh(f"{self.name}_live")
        ends = [body.op("Where", live, after, before) for after, before in zip(new, kept, strict=True)]
        # Where an example has ended its state is zero: it takes no part in the range.
        new[0] = body.op("Mul", new[0], body.op("Cast", live, to=TensorProto.FLOAT))
        inputs, outputs = [*states, *kept, *read, live], [*new, *ends, body.op("Identity", new[0])]
        return body.graph(inputs, outputs, booleans=(live,))
