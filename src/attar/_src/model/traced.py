"""TracedModel: a module as a graph, in PyTorch and in ONNX: structure that is exported once, and state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx
import torch
from torch import fx

from attar._src.artifact.manifest import Binding, Fold, Port
from attar._src.model.fold import Folding
from attar._src.model.programs import copy_graph, set_tensor, state_of


@dataclass(frozen=True)
class TracedModel:
    """A module as a graph.

    Attributes:
        graph: the decomposed program as a module in evaluation mode; its state has the module's own names.
            Batch-norms that could be folded are folded into it, the caller's module is untouched.
        names: the names of that state, in the order in which a file has them.
        model: the same program as ONNX, without weights; value names equal the names of the graph's nodes.
        bindings: how the ONNX graph's initializers are made of the state.
        constants: tensors of the graph that are no parameter or buffer of the module, by a name of their own.
        inputs, outputs: the graph's ports.
        folding: which batch-norms were folded, which kept and why.
        aliases: other names of tied parameters -> the name the state has.
        parameters: number of parameters of the caller's module, tied ones once.
        origins: value of the graph -> the value of the captured program it is (``model.capture``).
        baked: tensors of the state whose values the ONNX graph or ``constants`` contain, as they were at the export.
    """

    graph: fx.GraphModule
    names: tuple[str, ...]
    model: onnx.ModelProto
    bindings: tuple[Binding, ...]
    constants: Mapping[str, Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    folding: Folding
    aliases: Mapping[str, str]
    parameters: int
    origins: Mapping[str, str]
    baked: Mapping[str, torch.Tensor]

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The folded batch-norms as the manifest records them."""
        return tuple(Fold(batch_norm=name, into=into) for name, into in self.folding.folded.items())

    @property
    def values(self) -> frozenset[str]:
        """The names of the ONNX graph's values: its inputs and what its nodes make."""
        made = {value for node in self.model.graph.node for value in node.output}
        return frozenset(made | {port.name for port in self.inputs})

    def state(self) -> dict[str, torch.Tensor]:
        """Return the parameters and buffers the graph reads, by name, folded where they were."""
        known = state_of(self.graph)
        return {name: known[name].detach() for name in self.names}

    def fits(self, state: Mapping[str, torch.Tensor]) -> bool:
        """True where the graph can be put on ``state``: no tensor that is baked into it has changed."""
        return all(torch.equal(tensor, state[name]) for name, tensor in self.baked.items())

    def with_state(self, state: Mapping[str, torch.Tensor], folding: Folding) -> TracedModel:
        """Return the same graphs on another state; tensors that ``state`` lacks (constants of the trace) stay."""
        graph = copy_graph(self.graph)
        for name in state_of(graph).keys() & state.keys():
            set_tensor(graph, name, state[name])
        return replace(self, graph=graph, folding=folding)
