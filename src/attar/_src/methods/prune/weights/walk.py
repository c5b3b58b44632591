"""Weights of a graph solved one after another, each for what it reads once those before it were changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import fx

from attar._src.core.errors import SpecError
from attar._src.methods.prune.units import WeightRows
from attar._src.methods.prune.weights.in_step import Reached, TooManyValues, run_in_step
from attar._src.methods.prune.weights.row_pruning import SeenInputs
from attar._src.methods.prune.weights.seen import PairedInputs, seen_inputs
from attar._src.model.collect import Request, collect
from attar._src.model.operators import bias_of, kind_of
from attar._src.model.programs import copy_graph, set_tensor
from attar._src.model.recurrent.inputs import expose_inputs
from attar._src.model.statistics import InputHessian
from attar._src.model.traced import TracedModel
from attar._src.model.weights import LayerInput, find_weights, weight_input
from attar._src.work.calibration_inputs import BatchInputs, CalibrationInputs

#: Most bytes of the matrix of what a weight multiplies; some of its size are made at a time.
_MATRIX_BYTES = 1 << 30
#: Fewest inputs (examples times positions) of which the mean of a layer's output says something.
_FEWEST = 8

#: Name of a weight, what its rows multiply, and the rows that are wanted of it (by default its own) -> its new value.
Solve = Callable[[str, SeenInputs | None, torch.Tensor | None], torch.Tensor]


class WeightWalk:
    """The weights of a graph, with what they multiply on some inputs, in the network as it was and as it becomes.

    Attributes:
        traced: the deployed graph; it is not changed.
        inputs: real ones.
        sees: whether what weights multiply is looked at.
        state: of the graph.
        weights: of the graph, those with several readers included.
        rows: weight -> how it is cut into rows.
        reads: weight -> what it multiplies, where that can be seen.
        unseen: weight -> why it cannot.
        values: weight -> its new value, once it was solved.
        biases: name of a bias -> what is added to it.
        apart: weights that were not solved in order, as the values between them took too much memory.
    """

    def __init__(
        self, traced: TracedModel, inputs: CalibrationInputs, names: Iterable[str], *, sees: bool = True
    ) -> None:
        self.traced, self.inputs, self.sees = traced, inputs, sees
        self.graph, self._exposed = expose_inputs(traced.graph)
        self.weights, self.state = find_weights(traced.graph), traced.state()
        self.rows, self.reads = dict[str, WeightRows](), dict[str, LayerInput]()
        self.unseen, self.values, self.biases = dict[str, str](), dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        self.apart: list[str] = []
        for name in names:
            self._look(name)

    def _look(self, name: str) -> None:
        weight = self.weights[name]
        try:
            read = weight_input(self.graph, weight, self._exposed)
        except SpecError as error:
            self.unseen[name] = str(error)
        else:
            if (size := InputHessian.nbytes(read.window)) > _MATRIX_BYTES:
                self.unseen[name] = f"a matrix of its {read.window.length:,} inputs takes {size / 1e9:.1f} GB"
            else:
                self.reads[name] = read
        window = self.reads[name].window if name in self.reads else None
        self.rows[name] = WeightRows.of(tuple(self.state[name].shape), weight, window)

    def seen(self, names: Sequence[str]) -> Iterator[tuple[str, SeenInputs | None]]:
        """Yield weights with what they multiply in the network as it was."""
        wanted = {
            name: (Request.of_input(self.reads[name], InputHessian),) if self.sees and name in self.reads else ()
            for name in names
        }
        for name, collected in collect(self.graph, wanted, self.inputs.batches, "calibrating"):
            hessian = collected[0] if collected else None
            yield name, seen_inputs(hessian) if isinstance(hessian, InputHessian) else None

    def solve(
        self,
        names: Sequence[str],
        solve: Solve,
        *,
        sequential: bool,
        shifts: Callable[[str], bool],
        start: Mapping[str, torch.Tensor] = MappingProxyType({}),
    ) -> None:
        """Solve weights: first those that are solved as if they were alone, then the others in order.

        Args:
            names: of the weights.
            solve: one of them.
            sequential: whether what a layer reads is seen in the network with the others changed, and its outputs are
                those of the network as it was; recurrent layers, tables and weights with several readers are not.
            shifts: whether a bias may take the mean error of its outputs.
            start: tensor -> its value in the changed network before it is solved.
        """
        later = self._in_order(names) if sequential and self.sees else {}
        for name, seen in self.seen([name for name in names if name not in later]):
            self.values[name] = solve(name, seen, None)
        if later:
            self._together(later, solve, shifts, start)

    def _in_order(self, names: Sequence[str]) -> dict[str, fx.Node]:
        """Return the weights that one layer reads, with that layer."""
        nodes = {node.name: node for node in self.traced.graph.graph.nodes}
        layers = {
            name: nodes[self.weights[name].readers[0]]
            for name in names
            if name in self.reads and len(self.weights[name].readers) == 1
        }
        return {name: node for name, node in layers.items() if kind_of(node) in ("layer", "product")}

    def _together(
        self,
        layers: Mapping[str, fx.Node],
        solve: Solve,
        shifts: Callable[[str], bool],
        start: Mapping[str, torch.Tensor],
    ) -> None:
        """Solve layers in order, of fewer examples if memory asks for it."""
        batches: Sequence[BatchInputs] = self.inputs.batches
        alone = dict(self.values)
        while True:
            after = copy_graph(self.traced.graph)
            for name, value in self.state.items():
                set_tensor(after, name, alone.get(name, start.get(name, value)).clone())
            reached = {
                node.name: self._reached(name, node, after, solve, shifts, start) for name, node in layers.items()
            }
            self.biases.clear()
            try:
                run_in_step(self.traced.graph, after, reached, batches)
                return
            except TooManyValues:
                if len(batches) == 1:
                    break
                batches = batches[: len(batches) // 2]
        self.biases.clear()
        self.apart.extend(layers)
        for name, seen in self.seen([*layers]):
            self.values[name] = solve(name, seen, None)

    def _reached(
        self,
        name: str,
        node: fx.Node,
        after: fx.GraphModule,
        solve: Solve,
        shifts: Callable[[str], bool],
        start: Mapping[str, torch.Tensor],
    ) -> Reached:
        window, cut = self.reads[name].window, self.rows[name]
        # Outputs that start as zeros are gone, and no bias brings them back.
        gone = (cut.rows(start.get(name, self.state[name])) == 0).all(2) & (cut.rows(self.state[name]) != 0).any(2)

        def reached(was: Sequence[torch.Tensor], now: Sequence[torch.Tensor]) -> None:
            pairs = PairedInputs(window)
            for one, other in zip(was, now, strict=True):
                pairs.add(one, other)
            rows = cut.rows(self.state[name]).double()
            value = solve(name, pairs.seen(), pairs.aims(rows))
            self.values[name] = value
            set_tensor(after, name, value)
            bias = bias_of(node)
            own = self.state.get(str(bias.target)) if isinstance(bias, fx.Node) and bias.op == "get_attr" else None
            if bias is None or own is None or len(bias.users) > 1 or own.shape != (gone.numel(),):
                return
            target, removed, shift = str(bias.target), gone.reshape(-1), torch.zeros_like(own)
            if shifts(target) and pairs.count >= _FEWEST:
                error = pairs.mean_error(rows, cut.rows(value).double()).reshape(-1)
                self.biases[target] = shift = error.masked_fill(removed, 0).to(own.dtype)
            set_tensor(after, target, (own + shift).masked_fill(removed, 0))

        return reached
