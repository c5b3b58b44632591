"""Runs a network as it was and as it becomes, side by side over all batches, so that a layer can be changed when it is
reached and what follows sees the change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from attar._src.core.progress import track
from attar._src.model.chains.constants import constant_nodes
from attar._src.model.operators import data_of
from attar._src.work.calibration_inputs import BatchInputs

#: Bytes of the values of all batches of both networks that wait for their readers.
HELD_BYTES = 1 << 30

#: What a layer reads in the network as it was, and in the one that is changed, batch by batch.
Reached = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], None]


class TooManyValues(Exception):
    """The values that wait for their readers do not fit into ``HELD_BYTES``."""


def run_in_step(
    before: fx.GraphModule, after: fx.GraphModule, reached: Mapping[str, Reached], batches: Sequence[BatchInputs]
) -> None:
    """Run both networks node by node.

    Args:
        before: as it was.
        after: the same graph with tensors of its own, which ``reached`` may change.
        reached: name of a layer -> what is called with the values that it reads, before it runs.
        batches: inputs of both.

    Raises:
        TooManyValues: the values in between take too much memory.
    """
    sides = [_Side(each, batches) for each in (before, after)]
    last = max((place for place, node in enumerate(before.graph.nodes) if node.name in reached), default=-1)
    with torch.no_grad():
        pairs = [*zip(before.graph.nodes, after.graph.nodes, strict=True)][: last + 1]
        for nodes in track(pairs, "layers in order"):
            if nodes[0].name in reached:
                read = [side.values(data_of(node)[0]) for side, node in zip(sides, nodes, strict=True)]
                reached[nodes[0].name](*read)
                del read
            for side, node in zip(sides, nodes, strict=True):
                side.step(node)
            if sum(side.held() for side in sides) > HELD_BYTES:
                raise TooManyValues


class _Side:
    """One of the networks, with the values of all batches that are still to be read."""

    def __init__(self, program: fx.GraphModule, batches: Sequence[BatchInputs]) -> None:
        self.interpreter, self.count = fx.Interpreter(program), len(batches)
        self.inputs = [list(each) for each in zip(*batches, strict=True)]
        self.constant = constant_nodes(program.graph)
        self.known: dict[fx.Node, list[Any]] = {}
        self.readers: dict[fx.Node, fx.Node] = {}
        for node in program.graph.nodes:
            for read in node.all_input_nodes:
                self.readers[read] = node

    def step(self, node: fx.Node) -> None:
        """Compute a node for every batch, and forget what nothing reads any more."""
        if node.op == "placeholder":
            self.known[node] = self.inputs.pop(0)
        elif node.op != "output" and node not in self.constant:
            self.known[node] = [self._value(node, place) for place in range(self.count)]
        for read in node.all_input_nodes:
            if self.readers[read] is node:
                self.known.pop(read, None)

    def values(self, node: fx.Node) -> list[Any]:
        """Return the values of a node, one for each batch."""
        return self.known[node] if node in self.known else [self._value(node, place) for place in range(self.count)]

    def held(self) -> int:
        """Return the bytes of the values in between; inputs are the caller's."""
        made = [values for node, values in self.known.items() if node.op != "placeholder"]
        tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())

    def _value(self, node: fx.Node, place: int) -> Any:
        # What depends on parameters alone is computed when it is read, as these change.
        args, kwargs = map_arg((node.args, node.kwargs), lambda each: self._read(each, place))
        return getattr(self.interpreter, node.op)(node.target, args, kwargs)

    def _read(self, node: fx.Node, place: int) -> Any:
        return self.known[node][place] if node in self.known else self._value(node, place)
