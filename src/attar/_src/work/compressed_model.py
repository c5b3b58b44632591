"""CompressedModel: a traced module with the compressed tensors and activation grids that stages have given it."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils._pytree import tree_map

from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.manifest import Activation, Preprocessing
from attar._src.core.tensors import DTYPES, CompressedTensor, Dense
from attar._src.model.capture import wrap
from attar._src.model.programs import copy_graph, set_tensor
from attar._src.model.traced import TracedModel
from attar._src.train.inputs import arguments_taken


@dataclass(frozen=True)
class FileInfo:
    """What a file tells its user; ``task`` is ``classification`` or another word, ``licence`` that of the weights."""

    preprocessing: Preprocessing | None = None
    task: str | None = None
    class_names: tuple[str, ...] = ()
    metric: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class CompressedModel:
    """A module between two stages; immutable.

    Attributes:
        tensors: compressed tensors by state name; others are stored as they are.
        activations: quantized values of the graph by name, in graph order.
        rounded: names of those that the simulation rounds; the others are moves of them.
        record: what each stage did, in order; stored in the file.
    """

    traced: TracedModel
    tensors: Mapping[str, CompressedTensor] = field(default_factory=dict)
    activations: Mapping[str, Activation] = field(default_factory=dict)
    rounded: frozenset[str] = frozenset()
    record: tuple[Mapping[str, Any], ...] = ()

    def simulate(self, dtype: torch.dtype = torch.float32) -> fx.GraphModule:
        """Return a PyTorch module that computes what the file will: decoded weights, rounded activations.

        In float64 it is nearer to integer kernels, which sum exactly, than in float32.
        """
        graph = copy_graph(self.traced.graph)
        for name, tensor in self.stored().items():
            set_tensor(graph, name, torch.from_numpy(np.array(tensor.dense())))
        wrap(graph, {name: Round(grid) for name, grid in self.activations.items() if name in self.rounded}, "site_")
        return _compute_in(graph, dtype)

    def stored(self) -> dict[str, CompressedTensor]:
        """Return every tensor of the file, constants of the graph included, in graph order."""
        bound = {name for each in self.traced.bindings for name in [p.tensor for p in each.parts] or [each.to]}
        dense = {name: value.numpy() for name, value in self.traced.state().items() if name in bound}
        dense |= self.traced.constants
        return {name: self.tensors.get(name) or _dense(value) for name, value in dense.items()}

    def contents(self, use: FileInfo) -> Contents:
        """Return what goes into the file."""
        graph = GraphContents(
            name="main",
            model=self.traced.model,
            bindings=self.traced.bindings,
            inputs=self.traced.inputs,
            outputs=self.traced.outputs,
            activations=tuple(self.activations.values()),
        )
        return Contents(
            tensors=self.stored(),
            aliases=self.traced.aliases,
            graphs=(graph,),
            folds=self.traced.folds,
            parameters=self.traced.parameters,
            recipe={"stages": [dict(stage) for stage in self.record]},
            versions={"attar": version("attar"), "torch": torch.__version__},
            **vars(use),
        )

    def done(self, record: Mapping[str, Any], **changes: Any) -> CompressedModel:
        """Return the model after a stage, with the stage's entry added to the record."""
        return replace(self, record=(*self.record, record), **changes)


@dataclass(frozen=True)
class CalibrationInputs:
    """Batches of real inputs, each a tensor for each input; ``names`` are the arguments, none if by position."""

    batches: tuple[tuple[torch.Tensor, ...], ...]
    names: tuple[str, ...] = ()

    def of(self, parameters: Mapping[str, bool]) -> CalibrationInputs:
        """Return the inputs of a module, with names; ``parameters``: argument of its forward -> whether required.

        Raises:
            DataError: a required one is missing.
        """
        taken = arguments_taken(parameters, self.names, len(self.batches[0]))
        if not self.names:
            return replace(self, names=taken)
        places = [self.names.index(name) for name in taken]
        return CalibrationInputs(tuple(tuple(batch[i] for i in places) for batch in self.batches), taken)

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(len(batch[0]) for batch in self.batches)

    def example(self, count: int) -> tuple[torch.Tensor, ...]:
        """Return as one batch the first ``count`` examples of one shape, or all of the most frequent shape."""
        alike: dict[tuple[torch.Size, ...], list[tuple[torch.Tensor, ...]]] = {}
        for batch in self.batches:
            found = alike.setdefault(tuple(tensor.shape[1:] for tensor in batch), [])
            found.append(batch)
            if sum(len(first) for first, *_ in found) >= count:
                break
        else:
            found = max(alike.values(), key=lambda batches: sum(len(first) for first, *_ in batches))
        return tuple(torch.cat(tensors)[:count] for tensors in zip(*found, strict=True))

    def of_one_size(self) -> CalibrationInputs:
        """Return the batches as long as the first, for a graph with a fixed batch size."""
        size = len(self.batches[0][0])
        return replace(self, batches=tuple(batch for batch in self.batches if len(batch[0]) == size))

    def first(self, examples: int) -> CalibrationInputs:
        """Return the first batches with at most ``examples`` in all, at least one batch."""
        ends = list(itertools.accumulate(len(batch[0]) for batch in self.batches))
        return replace(self, batches=self.batches[: max(1, bisect.bisect_right(ends, examples))])


class Round(nn.Module):
    """Round to the grid of a quantized activation: ``scale * (clip(round(x / scale) + z, qmin, qmax) - z)``."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid."""
        grid = self.activation
        codes = torch.clamp(torch.round(x / grid.scale) + grid.zero_point, grid.qmin, grid.qmax)
        return (codes - grid.zero_point) * grid.scale


def _compute_in(graph: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """Return the graph computing in ``dtype``, tensors made along the way included."""
    if dtype is torch.float32:
        return graph
    for node in graph.graph.nodes:
        node.args, node.kwargs = tree_map(lambda a: dtype if a is torch.float32 else a, (node.args, node.kwargs))
        if _makes_float32(node):
            node.kwargs = {**node.kwargs, "dtype": dtype}
    graph.recompile()
    return graph.to(dtype)


def _makes_float32(node: fx.Node) -> bool:
    """Return whether a node makes a tensor from no other (zeros, arange) in the default type."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32 or "dtype" in node.kwargs:
        return False
    reads = any(n.op == "get_attr" or isinstance(n.meta.get("val"), torch.Tensor) for n in node.all_input_nodes)
    schema = getattr(node.target, "_schema", None)
    return not reads and schema is not None and any(argument.name == "dtype" for argument in schema.arguments)


def _dense(value: np.ndarray[Any, Any]) -> Dense:
    if value.dtype == np.float64:
        value = value.astype(np.float32)
    kinds = {kind: name for name, kind in DTYPES.items() if name != "bf16"}
    return Dense(np.ascontiguousarray(value), kinds[value.dtype])
