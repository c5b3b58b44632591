"""Runs of a graph that differ in a few of its tensors: what does not depend on these is computed once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

_NOTHING: Mapping[fx.Node, Any] = MappingProxyType({})


class ChangedRuns(fx.Interpreter):
    """Runs of a program on one batch that differ in the tensors ``changed``.

    Example: of a chain of 20 layers, a run with another weight in the last one computes this layer alone.

    Args:
        program: in evaluation mode; ``set_tensor`` changes it between two runs.
        batch: its inputs, by position.
        changed: names of parameters, buffers and submodules of the program.
        known: values of nodes for this batch, such as those of runs with a change further in front, of which what is
            behind can be computed sooner.

    Attributes:
        known: the values before the change that the rest reads.
    """

    def __init__(
        self,
        program: fx.GraphModule,
        batch: Sequence[torch.Tensor],
        changed: Collection[str],
        known: Mapping[fx.Node, Any] = _NOTHING,
    ) -> None:
        super().__init__(program, garbage_collect_values=False)
        behind = set[fx.Node]()
        for node in self.graph.nodes:
            own = node.op in ("get_attr", "call_module") and str(node.target) in changed
            if own or node.op == "output" or not behind.isdisjoint(node.all_input_nodes):
                behind.add(node)
        self._behind = [node for node in self.graph.nodes if node in behind]
        given = zip(self.graph.find_nodes(op="placeholder"), self.graph.process_inputs(*batch), strict=True)
        self.env = {**known, **dict(given)}
        needed = _needed({read for node in behind for read in node.all_input_nodes} - behind, self.env)
        with torch.no_grad():
            for node in self.graph.nodes:
                if node in needed:
                    self.env[node] = self.run_node(node)
        read = {node for node in self.env if node not in behind and not behind.isdisjoint(node.users)}
        self.known: Mapping[fx.Node, Any] = {node: self.env[node] for node in read}
        self.env = {}

    def outputs(self) -> Any:
        """Return the outputs of the program with its tensors as they are now."""
        self.env = dict(self.known)
        with torch.no_grad():
            for node in self._behind:
                self.env[node] = self.run_node(node)
        outputs = self.env[self._behind[-1]]
        self.env = {}
        return self.graph.process_outputs(outputs)

    def layer_outputs(self) -> list[torch.Tensor]:
        """Return the values that are the first to depend on a changed parameter or buffer and on an input."""
        tensors, found = set[fx.Node](), list[fx.Node]()
        self.env = dict(self.known)
        for node in self._behind:
            read = node.all_input_nodes
            if node.op == "get_attr" or (
                node.op == "call_function" and all(each.op == "get_attr" or each in tensors for each in read)
            ):
                tensors.add(node)
            elif not tensors.isdisjoint(read):
                found.append(node)
        with torch.no_grad():
            for node in self._behind[: 1 + self._behind.index(found[-1])] if found else ():
                self.env[node] = self.run_node(node)
        values = [leaf for node in found for leaf in tree_leaves(self.env[node]) if isinstance(leaf, torch.Tensor)]
        self.env = {}
        return values

    @property
    def nbytes(self) -> int:
        """The size of the known values that are no inputs or tensors of the program."""
        made = [value for node, value in self.known.items() if node.op not in ("placeholder", "get_attr")]
        return sum(leaf.nbytes for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor))


def _needed(nodes: Collection[fx.Node], known: Collection[fx.Node]) -> set[fx.Node]:
    """Return the nodes to run for the values of ``nodes``, if some are known."""
    found, todo = set[fx.Node](), list(nodes)
    while todo:
        node = todo.pop()
        if node not in known and node not in found:
            found.add(node)
            todo.extend(node.all_input_nodes)
    return found
