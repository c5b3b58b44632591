"""TracedModel: a module as a graph, in PyTorch and in ONNX: structure that is exported once, and state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx
import torch
from torch import fx, nn

from attar._src.artifact.manifest import Binding, Fold, Part, Port
from attar._src.model.fold import Folding
from attar._src.model.operators import operator_of
from attar._src.model.programs import copy_graph, set_tensor, state_of
from attar._src.model.weights import find_weights


@dataclass(frozen=True)
class TracedModel:
    """A module as a graph.

    Attributes:
        graph: the decomposed program in evaluation mode, batch-norms folded; its state has the module's own names.
        names: of that state, in the order of a file.
        model: the same program in ONNX, without weights; the names of its values are those of the graph's nodes.
        bindings: how the initializers of ``model`` are made of the state.
        constants: tensors of the graph that are no parameter or buffer of the module, by a name of their own.
        inputs, outputs: the graph's ports.
        folding: which batch-norms were folded; which were kept, with the reason.
        aliases: other names of tied parameters -> the name in the state.
        parameters: number of parameters of the module, tied ones once.
        origins: value of the graph -> the same value in the captured program.
        baked: tensors of the state whose values are part of ``model`` or ``constants``, as they were at the export.
        warnings: sentences for the user about what was left out.
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
    warnings: tuple[str, ...] = ()

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The folded batch-norms as the manifest records them."""
        return tuple(Fold(batch_norm=name, into=into) for name, into in self.folding.folded.items())

    @property
    def values(self) -> frozenset[str]:
        """The names of the ONNX graph's inputs and of the values that its nodes make."""
        made = {value for node in self.model.graph.node for value in node.output}
        return frozenset(made | {port.name for port in self.inputs})

    @property
    def any_batch(self) -> bool:
        """Whether the number of examples may vary."""
        port = self.inputs[0]
        return isinstance(port.shape[port.batch_axis], str) if port.shape else False

    def state(self) -> dict[str, torch.Tensor]:
        """Return the parameters and buffers of the graph by name, after folding."""
        known = state_of(self.graph)
        return {name: known[name].detach() for name in self.names}

    def computed_by(self) -> dict[str, str]:
        """Return value of the captured program -> the node of the graph that computes it."""
        nodes = {node.name: node for node in self.graph.graph.nodes}
        found = {}
        for name, captured in self.origins.items():
            node = nodes.get(name)
            if node is not None and operator_of(node).kind == "batch_norm":
                # Decomposed, it returns its output and two statistics.
                node = next((user for user in node.users if user.args[1:] == (0,)), node)
            if node is not None:
                found[captured] = node.name
        return found

    def deployed_as(self) -> dict[str, tuple[str, ...]]:
        """Return node of the graph that multiplies data by weights -> the names of the ONNX nodes that do so.

        A linear layer is one ``MatMul`` (and an ``Add`` behind it); an LSTM of two layers is two nodes. A node is
        missing if its products are others in ONNX.
        """
        nodes = {node.name: node for node in self.graph.graph.nodes}
        order = {name: place for place, name in enumerate(nodes)}
        reads = _readers_of_tensors(self.model.graph, self.bindings)
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for name, weight in find_weights(self.graph).items():
            readers = sorted({*weight.readers}, key=order.__getitem__)
            for types in {operator_of(nodes[reader]).onnx for reader in readers}:
                of = [reader for reader in readers if operator_of(nodes[reader]).onnx == types]
                products = [node.name for node in reads[name] if node.op_type in types.split()]
                # The export keeps the order of nodes.
                for reader, product in zip(of, products, strict=True) if len(of) == len(products) else ():
                    found[reader][product] = None
        return {reader: tuple(products) for reader, products in found.items()}

    def fits(self, state: Mapping[str, torch.Tensor]) -> bool:
        """Whether the graph is the same on ``state``: no baked tensor differs."""
        return all(torch.equal(tensor, state[name]) for name, tensor in self.baked.items())

    def renamed(self, names: Mapping[str, str]) -> TracedModel:
        """Return the same graphs with parameters of their own, which several graphs shared; new names have no dots."""
        graph, state = copy_graph(self.graph), self.state()
        for old, new in names.items():
            graph.register_parameter(new, nn.Parameter(state[old], requires_grad=False))
            for node in graph.graph.find_nodes(op="get_attr", target=old):
                node.target = new
        graph.recompile()
        bindings = []
        for each in self.bindings:
            parts = each.parts or (Part(tensor=each.to),)
            if any(part.tensor in names for part in parts):
                parts = tuple(part.model_copy(update={"tensor": names.get(part.tensor, part.tensor)}) for part in parts)
                each = each.model_copy(update={"parts": parts})
            bindings.append(each)
        own = tuple(names.get(name, name) for name in self.names)
        return replace(self, graph=graph, names=own, bindings=tuple(bindings))

    def with_state(self, state: Mapping[str, torch.Tensor], folding: Folding) -> TracedModel:
        """Return the same graphs on another state; tensors that ``state`` lacks (constants of the trace) stay."""
        graph = copy_graph(self.graph)
        for name in state_of(graph).keys() & state.keys():
            set_tensor(graph, name, state[name])
        return replace(self, graph=graph, folding=folding)


def _readers_of_tensors(graph: onnx.GraphProto, bindings: Iterable[Binding]) -> dict[str, list[onnx.NodeProto]]:
    """Return tensor -> the nodes that read it beside data, also behind nodes that read no data."""
    made = {each.to: {part.tensor for part in each.parts} or {each.to} for each in bindings}
    made |= {tensor.name: set() for tensor in graph.initializer}
    reads: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        inputs = [name for name in node.input if name]
        tensors = set[str]().union(*(made.get(name, ()) for name in inputs))
        if inputs and all(name in made for name in inputs):
            made |= dict.fromkeys(node.output, tensors)
        else:
            for tensor in tensors:
                reads[tensor].append(node)
    return reads
