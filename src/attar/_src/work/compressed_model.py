"""Workpiece: a traced module with what stages have made of its tensors and activations."""

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
from attar._src.core.tensors import CompressedTensor, Dense
from attar._src.model.capture import wrap
from attar._src.model.programs import copy_graph, set_tensor
from attar._src.model.traced import TracedModel
from attar._src.train.inputs import arguments_taken


@dataclass(frozen=True)
class FileInfo:
    """What a file tells its user.

    Attributes:
        preprocessing: what turns a raw example into an input.
        task: ``classification`` or another word.
        class_names: one for each class, or none.
        metric: what the task is judged by.
        licence: a note on the licence of the weights.
    """

    preprocessing: Preprocessing | None = None
    task: str | None = None
    class_names: tuple[str, ...] = ()
    metric: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class CompressedModel:
    """The module being worked.

    Attributes:
        traced: the module as a graph; never changed.
        tensors: compressed tensors by state name; a name that is missing is stored as it is.
        activations: quantized values of the graph by name, in graph order.
        rounded: those among them where the simulation rounds (the rest are moved copies of these).
        record: what each stage did, in order; it travels in the file.
    """

    traced: TracedModel
    tensors: Mapping[str, CompressedTensor] = field(default_factory=dict)
    activations: Mapping[str, Activation] = field(default_factory=dict)
    rounded: frozenset[str] = frozenset()
    record: tuple[Mapping[str, Any], ...] = ()

    def simulate(self, dtype: torch.dtype = torch.float32) -> fx.GraphModule:
        """Return a PyTorch module that computes what the file will: decoded weights, rounded activations.

        Args:
            dtype: what it computes in. Integer kernels sum exactly, so float64 is nearer to them than float32 is.
        """
        tensors = {name: torch.from_numpy(np.array(tensor.dense())) for name, tensor in self.stored().items()}
        graph = copy_graph(self.traced.graph)
        for name, value in tensors.items():
            set_tensor(graph, name, value)
        wrap(graph, {name: Round(grid) for name, grid in self.activations.items() if name in self.rounded}, "site_")
        return _compute_in(graph, dtype)

    def stored(self) -> dict[str, CompressedTensor]:
        """Return every tensor as it goes into the file, constants of the graph included, in graph order."""
        state = self.traced.state()
        bound = {part.tensor for binding in self.traced.bindings for part in binding.parts}
        bound |= {binding.to for binding in self.traced.bindings if not binding.parts}
        dense = {name: value.numpy() for name, value in state.items() if name in bound} | dict(self.traced.constants)
        return {name: self.tensors.get(name) or _dense(value) for name, value in dense.items()}

    def contents(self, use: FileInfo) -> Contents:
        """Return what goes into the file, with what its user is told."""
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
            preprocessing=use.preprocessing,
            task=use.task,
            class_names=use.class_names,
            metric=use.metric,
            recipe={"stages": [dict(stage) for stage in self.record]},
            versions={"attar": version("attar"), "torch": torch.__version__},
            licence=use.licence,
        )

    def done(self, record: Mapping[str, Any], **changes: Any) -> CompressedModel:
        """Return the workpiece after a stage, which it remembers."""
        return replace(self, record=(*self.record, record), **changes)


@dataclass(frozen=True)
class CalibrationInputs:
    """Batches of real inputs.

    Attributes:
        batches: of each batch a tensor for each input.
        names: the arguments these are; none where they are given by position.
    """

    batches: tuple[tuple[torch.Tensor, ...], ...]
    names: tuple[str, ...] = ()

    def of(self, parameters: Mapping[str, bool]) -> CalibrationInputs:
        """Return the inputs that a module takes, with their names.

        Args:
            parameters: the arguments of its forward -> whether they are required.

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
        """How many examples there are."""
        return sum(len(batch[0]) for batch in self.batches)

    def example(self, count: int) -> tuple[torch.Tensor, ...]:
        """Return the first ``count`` examples that have one shape as one batch; where there are fewer, the most."""
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
        """Return the batches that are as long as the first, for a graph whose batch is fixed."""
        size = len(self.batches[0][0])
        return replace(self, batches=tuple(batch for batch in self.batches if len(batch[0]) == size))

    def first(self, examples: int) -> CalibrationInputs:
        """Return the batches that hold the first ``examples``, whole batches only, at least one."""
        ends = list(itertools.accumulate(len(batch[0]) for batch in self.batches))
        return replace(self, batches=self.batches[: max(1, bisect.bisect_right(ends, examples))])


@dataclass(frozen=True)
class _NoSchema:
    arguments: tuple[Any, ...] = ()


_NO_SCHEMA = _NoSchema()


class Round(nn.Module):
    """Round to the grid of a quantized activation: ``scale * (clip(round(x / scale) + z, qmin, qmax) - z)``."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid, any shape."""
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
    """True for a tensor made from nothing (zeros, arange) in the default type, without saying so."""
    value = node.meta.get("val")
    made = isinstance(value, torch.Tensor) and value.dtype is torch.float32 and "dtype" not in node.kwargs
    takes = any(argument.name == "dtype" for argument in getattr(node.target, "_schema", _NO_SCHEMA).arguments)
    floating = [n for n in node.all_input_nodes if n.op == "get_attr" or isinstance(n.meta.get("val"), torch.Tensor)]
    return made and takes and not floating


def _dense(value: np.ndarray[Any, Any]) -> Dense:
    kinds = {np.dtype(kind): name for name, kind in (("f32", "<f4"), ("f16", "<f2"), ("i64", "<i8"), ("i32", "<i4"))}
    kinds |= {np.dtype("<i2"): "i16", np.dtype("i1"): "i8", np.dtype("u1"): "u8", np.dtype("?"): "bool"}
    if value.dtype == np.float64:
        value = value.astype(np.float32)
    return Dense(np.ascontiguousarray(value), kinds[value.dtype])
