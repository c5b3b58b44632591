"""CompressedModel: a traced module with the compressed tensors and activation grids that stages have given it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.utils._pytree import tree_map

from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.manifest import Activation, Preprocessing
from attar._src.core.errors import DataError, ModelError
from attar._src.core.tensors import DTYPES, CompressedTensor, Dense
from attar._src.model.programs import copy_graph, set_tensor, wrap
from attar._src.model.traced import TracedModel
from attar._src.model.weights import Weight, find_weights
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.dynamic_recurrent import recur_dynamically
from attar._src.work.dynamic_rounding import round_inputs

#: What the graph of a model is called that has one.
MAIN = "main"


@dataclass(frozen=True)
class FileInfo:
    """What a file tells its user; ``task`` is ``classification`` or another word, ``licence`` that of the weights."""

    preprocessing: Preprocessing | None = None
    task: str | None = None
    class_names: tuple[str, ...] = ()
    metric: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class CompressedGraph:
    """One graph of a compressed model.

    Attributes:
        traced: the module, or one of its methods, as a graph; never changed.
        activations: quantized values of the graph by name, in graph order.
        rounded: those among them where the simulation rounds (the rest are moved copies of these).
        dynamic: nodes of the graph that quantize their data as they read them.
        rows: those among them that scale each row of their data before (``methods/quantize/row_scales.py``).
        floating: values that stay in floating point by request, by name in the graph that the file will have.
        folded_later: if batch-norms of ``traced`` are folded after a later training: the folded graph, whose sites are
            those that the file will have.
    """

    traced: TracedModel
    activations: Mapping[str, Activation] = field(default_factory=dict)
    rounded: frozenset[str] = frozenset()
    dynamic: frozenset[str] = frozenset()
    rows: frozenset[str] = frozenset()
    floating: frozenset[str] = frozenset()
    folded_later: TracedModel | None = None

    def stored(self) -> dict[str, NDArray[Any]]:
        """Return what its initializers are made of, by name: parts of the state, then constants."""
        state = self.traced.state()
        bound = {part.tensor for binding in self.traced.bindings for part in binding.parts}
        bound |= {binding.to for binding in self.traced.bindings if not binding.parts}
        return {name: value.numpy() for name, value in state.items() if name in bound} | dict(self.traced.constants)

    def contents(self, name: str) -> GraphContents:
        """Return what goes into the file under ``name``."""
        traced = self.traced
        activations, deployed = tuple(self.activations.values()), traced.deployed_as() if self.dynamic else {}
        layers = [node.name for node in traced.graph.graph.nodes if node.name in self.dynamic]
        dynamic = tuple(node for layer in layers for node in deployed[layer])
        rows = tuple(node for layer in layers if layer in self.rows for node in deployed[layer])
        return GraphContents(
            name, traced.model, traced.bindings, traced.inputs, traced.outputs, activations, dynamic, rows
        )


class FileTarget(Protocol):
    """What the file of a model must hold."""

    def excess(self, model: CompressedModel) -> int:
        """Return the bytes of the model's file above the target; 0 or less if it holds."""

    def missed(self, packed: bytes, coder: str) -> str:
        """Return what a file, packed with ``coder``, misses, with a fix; empty if it holds."""

    def holds(self, model: CompressedModel) -> bool:
        """Return whether the model's file holds all that was asked."""


@dataclass(frozen=True)
class CompressedModel:
    """The module being worked: one or more graphs that share its tensors.

    Attributes:
        graphs: the graphs by name; ``main`` where there is one.
        tensors: compressed tensors by state name; a name that is missing is stored as it is.
        record: what each stage did, in order; it travels in the file.
        warnings: sentences for the user, each with the nearest fix; packaging prints and reports them first.
        pruned: quantized tensor -> which of its elements a stage before had made zero, of the tensor's shape.
        schemes: weight -> the scheme by which it has some codes of its grid alone: those that it uses.
        widened: weight -> channels that got a wider step, so that pairs of products fit 16 bits.
        notes: remarks for the report, by topic.
        target: what its file must hold; None if nothing was asked.
    """

    graphs: Mapping[str, CompressedGraph]
    tensors: Mapping[str, CompressedTensor] = field(default_factory=dict)
    record: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    pruned: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    schemes: Mapping[str, str] = field(default_factory=dict)
    widened: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    target: FileTarget | None = None

    @classmethod
    def of(cls, traced: TracedModel | Mapping[str, TracedModel], **fields: Any) -> CompressedModel:
        """Return an untouched module: one traced graph, called ``main``, or several by name.

        Raises:
            ModelError: a tensor differs between two graphs.
        """
        several = {MAIN: traced} if isinstance(traced, TracedModel) else traced
        warnings = tuple(dict.fromkeys(warning for each in several.values() for warning in each.warnings))
        model = cls({name: CompressedGraph(each) for name, each in several.items()}, warnings=warnings, **fields)
        model.state()
        return model

    @property
    def main(self) -> CompressedGraph:
        """The graph, where there is one.

        Raises:
            ModelError: there are several.
        """
        if len(self.graphs) > 1:
            raise ModelError(f"the model has the graphs {[*self.graphs]}; one graph was expected")
        return next(iter(self.graphs.values()))

    def state(self) -> dict[str, torch.Tensor]:
        """Return the parameters and buffers that the graphs read, by name, folded where they were.

        Raises:
            ModelError: two graphs have different tensors of one name.
        """
        return _shared({name: graph.traced.state() for name, graph in self.graphs.items()})

    def shared(self) -> frozenset[str]:
        """Return the names of the tensors that several graphs read."""
        counted = Counter(name for graph in self.graphs.values() for name in graph.traced.names)
        return frozenset(name for name, graphs in counted.items() if graphs > 1)

    def aliases(self) -> dict[str, str]:
        """Return other names of tied parameters -> the name in the state."""
        return {alias: name for each in self.graphs.values() for alias, name in each.traced.aliases.items()}

    def weights(self) -> dict[str, Weight]:
        """Return the weights of all graphs; of one that several read, what :func:`find_weights` prefers: products."""
        found: dict[str, Weight] = {}
        for graph in self.graphs.values():
            for name, weight in find_weights(graph.traced.graph).items():
                if name not in found or found[name].role == "embedding":
                    found[name] = weight
        return found

    def readers(self) -> dict[str, list[str]]:
        """Return tensor -> the graphs that multiply data by it; if none does, those that read it."""
        read: dict[str, list[str]] = defaultdict(list)
        multiply: dict[str, list[str]] = defaultdict(list)
        for graph, each in self.graphs.items():
            weights = find_weights(each.traced.graph)
            for name in each.traced.names:
                read[name].append(graph)
                if name in weights and weights[name].role != "embedding":
                    multiply[name].append(graph)
        return {**read, **multiply}

    def unrounded(self, graph: str) -> fx.GraphModule:
        """Return a graph with its weights as they are stored and its activations in floating point."""
        of = self.graphs[graph]
        if not self.tensors:
            return of.traced.graph
        return replace(self, graphs={graph: CompressedGraph(of.traced)}).simulate()

    def simulate(self, dtype: torch.dtype = torch.float32, *, graph: str | None = None) -> fx.GraphModule:
        """Return a PyTorch module that computes what the file will: decoded weights, rounded activations.

        Args:
            dtype: what it computes in. Integer kernels sum exactly, so float64 is nearer to them than float32 is.
            graph: which graph; None where there is one.
        """
        of = self.main if graph is None else self.graphs[graph]
        simulated = copy_graph(of.traced.graph)
        for name, value in of.stored().items():
            tensor = self.tensors.get(name) or _dense(value)
            set_tensor(simulated, name, torch.from_numpy(np.array(tensor.dense())))
        wrap(simulated, {name: Round(grid) for name, grid in of.activations.items() if name in of.rounded}, "site_")
        round_inputs(simulated, of.dynamic, "dynamic_", of.rows)
        recur_dynamically(simulated, of.dynamic, "dynamic_")
        return _compute_in(simulated, dtype)

    def stored(self) -> dict[str, CompressedTensor]:
        """Return every tensor as it goes into the file, constants of the graphs included, in graph order.

        Raises:
            ModelError: two graphs have different tensors of one name.
        """
        dense = _shared({name: graph.stored() for name, graph in self.graphs.items()})
        return {name: self.tensors.get(name) or _dense(value) for name, value in dense.items()}

    def contents(self, use: FileInfo) -> Contents:
        """Return what goes into the file, with what its user is told."""
        traced = [graph.traced for graph in self.graphs.values()]
        tensors = self.stored()
        aliases = {alias: name for alias, name in self.aliases().items() if alias not in tensors}
        return Contents(
            tensors=tensors,
            aliases=aliases,
            graphs=tuple(graph.contents(name) for name, graph in self.graphs.items()),
            folds=tuple(dict.fromkeys(fold for each in traced for fold in each.folds)),
            parameters=traced[0].parameters,
            recipe={"stages": [dict(stage) for stage in self.record]},
            versions={"attar": version("attar"), "torch": torch.__version__},
            **vars(use),
        )

    def done(self, record: Mapping[str, Any], **changes: Any) -> CompressedModel:
        """Return the model after a stage, with the stage's entry added to the record."""
        return replace(self, record=(*self.record, record), **changes)


def _shared(graphs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tensors or arrays of all graphs, each once.

    Raises:
        ModelError: two graphs have different ones of one name.
    """
    found: dict[str, Any] = {}
    first: dict[str, str] = {}
    for graph, tensors in graphs.items():
        for name, value in tensors.items():
            if not _same(found.setdefault(name, value), value):
                raise ModelError(
                    f"{name} differs between the graphs {first[name]!r} and {graph!r}; trace them together, of one "
                    "module (trace_methods), or store them in files of their own"
                )
            first.setdefault(name, graph)
    return found


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    alike = one.dtype == other.dtype and one.shape == other.shape
    # NaN equals NaN here.
    return alike and bool(((one == other) | ((one != one) & (other != other))).all())


#: Real inputs of the one graph, or of each of several by name.
Calibration = CalibrationInputs | Mapping[str, CalibrationInputs]


def inputs_by_graph(model: CompressedModel, calibration: Calibration) -> dict[str, CalibrationInputs]:
    """Return the inputs of each graph.

    Raises:
        DataError: there are several graphs, and one has no inputs of its own.
    """
    if isinstance(calibration, CalibrationInputs):
        if len(model.graphs) == 1:
            return dict.fromkeys(model.graphs, calibration)
        calibration = {}
    missing = [name for name in model.graphs if name not in calibration]
    if missing:
        raise DataError(f"the graphs {missing} have no inputs; give a mapping: name of a graph -> its inputs")
    return {name: calibration[name] for name in model.graphs}


class Round(nn.Module):
    """Round to the grid of a quantized activation: ``scale * (clip(round(x / scale) + z, qmin, qmax) - z)``."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid."""
        grid = self.activation
        # In place, as the memory of a large tensor costs more than the arithmetic.
        codes = (x / grid.scale).round_().add_(grid.zero_point).clamp_(grid.qmin, grid.qmax)
        return codes.sub_(grid.zero_point).mul_(grid.scale)


def _compute_in(graph: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """Return the graph computing in ``dtype``, tensors made along the way included."""
    if dtype is torch.float32:
        return graph
    wide = {torch.float32: dtype, torch.complex64: torch.complex128}
    for node in graph.graph.nodes:
        node.args, node.kwargs = tree_map(
            lambda a: wide.get(a, a) if isinstance(a, torch.dtype) else a, (node.args, node.kwargs)
        )
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
    # np.ascontiguousarray would make a scalar a vector.
    return Dense(np.asarray(value, order="C"), kinds[value.dtype])
