"""Blocks of a graph: parts between values that everything passes through, such as a residual block.

Nodes are in topological order. After each one, some values that were computed are still to be read. Where it is one
floating-point tensor, the graph can be cut: a block reads one value and makes one. A residual block is one, because its
shortcut is still to be read until the addition; in a chain each layer is one. Values that depend on nothing quantized
(masks, positions) are no obstacle: all blocks read them as they are.

A part with more than ``LARGEST`` layers, as in a network with shortcuts from end to end, is cut before each of its
layers; such blocks read and make several values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from attar._src.model.operators import is_floating

#: Most learned weights of a block.
LARGEST = 12


@dataclass(frozen=True)
class Block:
    """A part of a graph.

    Attributes:
        program: computes the outputs from the inputs.
        inputs, outputs: names of values of the graph.
        modules: names of the modules that it calls.
    """

    program: fx.GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    modules: tuple[str, ...]


def find_blocks(graph: fx.GraphModule, weights: Collection[str]) -> list[Block]:
    """Return the blocks of a graph in order; each value of ``inputs`` is an output of one before, or a free value.

    Args:
        graph: with modules between its nodes, for weights and values that are quantized.
        weights: names of the modules that hold weights to be learned; each block calls at least one.
    """
    flow = _Flow(graph, weights)
    return [flow.block(start, stop) for start, stop in flow.segments()]


def free_values(graph: fx.GraphModule, blocks: Sequence[Block]) -> fx.GraphModule:
    """Return a program from the inputs of a graph to the inputs of blocks that no block computes, in order of name."""
    made = {name for block in blocks for name in block.outputs}
    wanted = sorted({name for block in blocks for name in block.inputs} - made)
    nodes = {node.name: node for node in graph.graph.nodes}
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    program, _ = extract(graph, inputs, [nodes[name] for name in wanted])
    return program


def extract(
    graph: fx.GraphModule, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Return the program that computes ``outputs`` from ``inputs`` as a tuple, and the modules it calls."""
    made = fx.Graph()
    copies = {node: made.placeholder(node.name) for node in inputs}
    needed = _needed(inputs, outputs)
    for node in graph.graph.nodes:
        if node in needed:
            copies[node] = made.node_copy(node, copies.__getitem__)
    made.output(tuple(copies[node] for node in outputs))
    modules = tuple(dict.fromkeys(str(node.target) for node in made.nodes if node.op == "call_module"))
    return fx.GraphModule(graph, made), modules


def _needed(inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    todo = [node for node in outputs if node not in inputs]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += [each for each in node.all_input_nodes if each not in inputs]
    return found


class _Flow:
    """The values of a graph that depend on what is quantized, in order."""

    def __init__(self, graph: fx.GraphModule, weights: Collection[str]) -> None:
        self.graph, self.weights = graph, weights
        self.nodes: list[fx.Node] = []
        self.constant: set[fx.Node] = set()
        self.sizes: set[fx.Node] = set()
        flowing: set[fx.Node] = set()
        for node in graph.graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            if all(each in self.constant for each in node.all_input_nodes):
                self.constant.add(node)
            elif flowing.isdisjoint(node.all_input_nodes) and not self._quantized(node):
                if not _holds_tensor(node):
                    self.sizes.add(node)
            else:
                flowing.add(node)
                self.nodes.append(node)
        self.place = {node: place for place, node in enumerate(self.nodes)}
        self.last = {node: self._last_use(node) for node in self.nodes}

    def _quantized(self, node: fx.Node) -> bool:
        """Whether a node rounds, or reads what is quantized."""
        return node.op == "call_module" or any(
            each.op == "call_module" or any(inner.op == "call_module" for inner in _constants_of(each, self.constant))
            for each in node.all_input_nodes
            if each in self.constant
        )

    def _last_use(self, node: fx.Node) -> int:
        return max((self.place[user] for user in node.users if user in self.place), default=self.place[node])

    def _weights_of(self, node: fx.Node) -> set[str]:
        """Return the learned weights that a node reads, itself or behind moves."""
        read = {
            inner
            for each in node.all_input_nodes
            if each in self.constant
            for inner in (each, *_constants_of(each, self.constant))
        }
        return {str(each.target) for each in read if each.op == "call_module"} & set(self.weights)

    def segments(self) -> list[tuple[int, int]]:
        """Return first and last place (exclusive) of each block."""
        counts = [bool(self._weights_of(node)) for node in self.nodes]
        ends = [place + 1 for place in range(len(self.nodes)) if self._is_cut(place)]
        if not ends or ends[-1] != len(self.nodes):
            ends.append(len(self.nodes))
        segments: list[tuple[int, int]] = []
        start = 0
        for end in ends:
            with_weights = any(counts[start:end])
            if not with_weights and segments and segments[-1][1] == start and self._keeps_size(segments[-1][1], end):
                segments[-1] = (segments[-1][0], end)
                start = end
            elif with_weights:
                segments += self._divided(start, end, counts)
                start = end
        if segments and start < len(self.nodes):
            segments[-1] = (segments[-1][0], len(self.nodes))
        return segments

    def _divided(self, start: int, end: int, counts: Sequence[bool]) -> list[tuple[int, int]]:
        """Return a segment, or its layers if it has too many."""
        if sum(counts[start:end]) <= LARGEST:
            return [(start, end)]
        cuts = [place for place in range(start + 1, end) if counts[place] and self._can_part(place)]
        return (
            [(a, b) for a, b in zip([start, *cuts], [*cuts, end], strict=True) if any(counts[a:b])]
            if cuts
            else [(start, end)]
        )

    def _live(self, place: int) -> list[fx.Node]:
        """Return the values computed up to a place that later nodes read."""
        return [node for node in self.nodes[: place + 1] if self.last[node] > place]

    def _is_cut(self, place: int) -> bool:
        live = self._live(place)
        if place == len(self.nodes) - 1:
            return True
        # Behind a value is better than behind its rounding: the next block then learns the grid of what it reads.
        return len(live) == 1 and live[0].op == "call_function" and is_floating(live[0])

    def _can_part(self, place: int) -> bool:
        return all(node.op == "call_module" or is_floating(node) for node in self._live(place - 1))

    def _keeps_size(self, place: int, end: int) -> bool:
        """Whether the value at ``end`` has as many elements as the one at ``place``."""
        one, other = (getattr(self.nodes[at - 1].meta.get("val"), "shape", None) for at in (place, end))
        return one is not None and other is not None and sorted(map(str, one)) == sorted(map(str, other))

    def block(self, start: int, stop: int) -> Block:
        """Return the block of the nodes from ``start`` to ``stop``."""
        inside = self.nodes[start:stop]
        own = set(inside)
        outputs = [node for node in inside if self.last[node] >= stop or _is_output(node)]
        read = dict.fromkeys(
            each
            for node in self.graph.graph.nodes
            if node in own
            for each in node.all_input_nodes
            if each not in own and each not in self.constant and each not in self.sizes
        )
        # Sizes are computed again, of the inputs of the graph.
        needed = _needed([*read], outputs)
        read |= dict.fromkeys(node for node in self.graph.graph.nodes if node in needed and node.op == "placeholder")
        program, modules = extract(self.graph, [*read], outputs)
        inputs = tuple(node.name for node in read)
        return Block(program, inputs, tuple(node.name for node in outputs), modules)


def _constants_of(node: fx.Node, constant: Collection[fx.Node]) -> set[fx.Node]:
    return {each for each in _needed([], [node]) if each in constant} - {node}


def _is_output(node: fx.Node) -> bool:
    return any(user.op == "output" for user in node.users)


def _holds_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return value is None or isinstance(value, torch.Tensor | tuple | list)
