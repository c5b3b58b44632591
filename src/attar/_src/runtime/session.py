"""Session: run a ``.attar`` file, numpy in and numpy out, without PyTorch (file -> ``lower`` -> ``Engine``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.graph.emptiness import NEED_ELEMENTS, EmptyAxis
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Manifest, Port
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.core.errors import ArtifactError, DataError, SpecError, naming_file
from attar._src.core.fields import main_output_name
from attar._src.core.operators import INTEGER_KERNELS
from attar._src.core.scheme import Shape
from attar._src.core.tensors import DTYPES
from attar._src.runtime.engine import Engine, kernels, rounded_values, saturates
from attar._src.runtime.isolated import Bounds, IsolatedGraph
from attar._src.runtime.lower import lower
from attar._src.runtime.packed.blocks import PACKED, PACKED_TABLE
from attar._src.runtime.packed.packer import Packing
from attar._src.runtime.preprocess import preprocess

#: Operators of ONNX Runtime that multiply integers.
_INTEGER = frozenset(name for kernel in INTEGER_KERNELS.values() for name in kernel.names.split())
_REMEMBERED = 1024

WeightForm = Literal["auto", "float32", "packed"]


@dataclass(frozen=True)
class Layer:
    """The kernels a layer of the module ran on, whatever the number of nodes that read its weights.

    A head that a module calls twice is one layer of two nodes; an LSTM with a node for each step and matrix is one.

    Attributes:
        name: the module of the weight.
        nodes: the nodes of the graph that read its weights.
        kernel: the operators ONNX Runtime ran, each once; ``float`` for those that are not in the profile.
        integer: whether all of them multiply integers.
        reason: why not; empty if they do. Of a layer that is in integers in part, also in how many of its nodes.
        plan: ``integers`` of static grids, ``dynamic integers``, ``packed weights`` or ``float32``; each once.
    """

    name: str
    nodes: tuple[str, ...]
    kernel: str
    integer: bool
    reason: str
    plan: str

    @classmethod
    def of(cls, name: str, uses: Sequence[tuple[str, str, str, str]]) -> Layer:
        """Return a layer by its uses: node, kernel, why this is no integer kernel, and plan."""
        nodes, kernels, reasons, plans = zip(*uses, strict=True)
        floating = [reason for reason in reasons if reason]
        reason = "; ".join(dict.fromkeys(floating))
        if 0 < len(floating) < len(uses):
            reason = f"in {len(floating)} of {len(uses)} nodes: {reason}"
        kernel, plan = (", ".join(dict.fromkeys(each)) for each in (kernels, plans))
        return cls(name, nodes, kernel, not floating, reason, plan)


class Session:
    """A model ready to run.

    Args:
        source: path of a ``.attar`` file, the bytes of one, or an open :class:`Artifact`.
        graph: name of the graph to run.
        threads: threads for decoding and running; None decodes on one and lets ONNX Runtime choose for running.
        limits: limits on what the file may allocate, if ``source`` is not open yet.
        isolated: decode, check and run the file in a process of its own (``runtime.isolated``), for files that are not
            trusted: a crash, hang or lack of memory there is an ArtifactError here. Linux and macOS.
        memory: bytes of address space of that process (Linux), its libraries included.
        seconds: wall-clock time that it may take to open the file, and for each run.
        weights: form of the weights that are multiplied by real numbers. ``packed``: those of linear layers of up to 4
            bits, and tables of up to 8, stay as codes in memory, an eighth of float32 at 4 bits. A single row (one
            token, one example) takes about half the time with large packed weights, several rows take 1.02 (128 rows)
            to 1.3 times (2 to 8 rows) as long. ``auto``: large weights have both forms, the packed one for single rows,
            if this machine is faster with it. ``float32``: none is packed. Outputs agree within float32 rounding.

    Attributes:
        inputs, outputs: those of :meth:`run`.
        dequantized: compressed tensor -> why it was converted to float32 when the file was opened.

    Raises:
        ArtifactError: the file is malformed, or ONNX Runtime refuses its graph.
        UnknownName: the file has no such graph.

    Example:
        >>> session = Session("model.attar")
        >>> session.run(session.preprocess(np.zeros((1, 3, 8, 8), np.uint8))).shape
        (1, 10)
    """

    def __init__(
        self,
        source: str | Path | bytes | Artifact,
        *,
        graph: str = "main",
        threads: int | None = None,
        limits: Limits | None = None,
        isolated: bool = False,
        memory: int = Bounds.memory,
        seconds: float = Bounds.seconds,
        weights: WeightForm = "auto",
    ) -> None:
        if weights not in get_args(WeightForm):
            raise SpecError(f"weights={weights!r} is no form of weights; use {' or '.join(get_args(WeightForm))}")
        self.artifact = source if isinstance(source, Artifact) else open_artifact(source, limits=limits)
        record = self.artifact.graph_record(graph)
        self.inputs: tuple[Port, ...] = record.inputs
        self.outputs: tuple[Port, ...] = record.outputs
        self._returned = tuple(port.name for port in record.outputs)
        self._accepted: set[tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]] = set()
        self._dynamic = frozenset(record.dynamic)
        self._rounded: tuple[str, ...] = ()
        self._isolated: IsolatedGraph | None = None
        self.dequantized: Mapping[str, str]
        if isolated:
            with naming_file(self.artifact.path):
                bounds = Bounds(memory, seconds)
                self._isolated = IsolatedGraph(self.artifact, graph, self.outputs, threads, bounds, weights)
            self.dequantized, self._run, self._needs_elements = self._isolated.dequantized, self._isolated.run, False
            return
        self._graph_of_file = self.artifact.checked_graph(graph)
        self._lower = partial(
            lower, self.artifact, graph, threads=threads or 1, private=True, packing=self._packing(weights)
        )
        lowered = self._lower(model=self._graph_of_file.model)
        if lowered.saturating and saturates():
            lowered = self._lower(shared=False)
        self.dequantized = lowered.dequantized
        self._needs_elements = any(node.op_type in NEED_ELEMENTS for node in lowered.bare.graph.node)
        rounded = rounded_values(lowered.bare.graph)
        self._rounded = tuple(port.name for port in self.inputs if port.dtype.startswith("f") and port.name in rounded)
        bare = lowered.bare.SerializeToString()
        self._run = Engine(bare, weights=lowered.weights, threads=threads, exact=bool(lowered.saturating)).run

    @property
    def main_output(self) -> str:
        """The output that losses and metrics see: ``logits``, else the first floating-point one, else the first."""
        return main_output_name({port.name: port.dtype.startswith("f") for port in self.outputs})

    @property
    def manifest(self) -> Manifest:
        """The manifest of the file."""
        return self.artifact.manifest

    def run(self, inputs: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Any:
        """Run the graph once.

        Args:
            inputs: arrays by input name, or a single array if the graph has one input.

        Returns:
            The outputs by name; a single array if ``inputs`` was one and the graph has one output.

        Raises:
            DataError: a name, type or shape does not match the graph's inputs; or an operator that needs elements,
                such as an LSTM or a convolution, would have none: (0, 5, 3) into an LSTM; or an input has a NaN, which
                a graph that rounds activations to integers would make a number of.
        """
        if isinstance(inputs, Mapping):
            feed = self._checked(inputs)
            for name in self._rounded:
                _demand_numbers(name, feed[name])
            try:
                found = self._run(feed)
            except ArtifactError:
                with naming_file(self.artifact.path):
                    raise
            return dict(zip(self._returned, found, strict=True))
        if len(self.inputs) != 1:
            names = ", ".join(port.name for port in self.inputs)
            raise DataError(f"one array was given for {len(self.inputs)} inputs; pass a dict of {names}")
        found = self.run({self.inputs[0].name: inputs})
        return found if len(found) > 1 else next(iter(found.values()))

    def preprocess(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Preprocess raw examples into an input of :meth:`run` (``docs/format.md``, section 6).

        Without preprocessing in the file, the examples are only cast to the type of the first input.

        Raises:
            DataError: axes or channels do not fit the layout, or the examples cannot be cast to the input's type.
        """
        if self.manifest.preprocessing is not None:
            raw = preprocess(self.manifest.preprocessing, raw)
        kind = DTYPES[self.inputs[0].dtype]
        if not np.can_cast(raw.dtype, kind, "same_kind"):
            raise DataError(f"input {self.inputs[0].name!r} takes {kind}, the examples are {raw.dtype}")
        return raw.astype(kind, copy=False)

    def example(self, batch: int | None = None) -> dict[str, NDArray[Any]]:
        """Return zeros at the example sizes of the file; batch axes that are symbolic have the size ``batch``."""
        feed = {}
        for port in self.inputs:
            sizes = list(port.example or [axis if isinstance(axis, int) else 1 for axis in port.shape])
            if batch is not None and port.shape and not isinstance(port.shape[port.batch_axis], int):
                sizes[port.batch_axis] = batch
            feed[port.name] = np.zeros(sizes, DTYPES[port.dtype])
        return feed

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers with a weight of two axes or more, from ONNX Runtime's profile of one run."""
        if self._isolated is not None:
            return tuple(Layer(*fields) for fields in self._isolated.layers())
        return self.layers_for(self.example())

    def layers_for(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[Layer, ...]:
        """Return the layers as they run on these inputs: with packed weights for a single row, for example.

        Raises:
            SpecError: the session is isolated.
        """
        if self._isolated is not None:
            raise SpecError(
                "layers of given inputs were asked of an isolated session; open the file without isolated=True"
            )
        lowered = self._lower()
        ran = kernels(lowered.bare.SerializeToString(), dict(inputs), lowered.weights)
        uses = defaultdict[str, list[tuple[str, str, str, str]]](list)
        for node, (tensors, reason) in lowered.layers.items():
            kernel = ran.get(node, "float")
            why = "" if kernel in _INTEGER else reason or "ONNX Runtime chose a float kernel"
            integers = "dynamic integers" if node in self._dynamic else "integers"
            plan = integers if not why else "packed weights" if kernel in (PACKED, PACKED_TABLE) else "float32"
            uses[tensors[0].rpartition(".")[0] or tensors[0]].append((node, kernel, why, plan))
        return tuple(Layer.of(name, each) for name, each in uses.items())

    def integer_layers(self) -> tuple[str, ...]:
        """Return the names of the layers that ran in integers, according to ONNX Runtime's profile."""
        return tuple(layer.name for layer in self.layers if layer.integer)

    def _packing(self, weights: WeightForm) -> Packing | None:
        """Return which weights stay packed."""
        if weights != "auto":
            return Packing() if weights == "packed" else None
        fixed = all(isinstance(axis, int) for port in self.inputs for axis in port.shape)
        shapes = {name: sized.shape for name, sized in self._graph_of_file.values.items()} if fixed else {}
        return Packing.of_single_rows(shapes)

    def _demand_elements(self, shapes: Mapping[str, Shape]) -> None:
        """Raise unless every operator that needs elements has some at these sizes; the others return empty arrays."""
        try:
            self._graph_of_file.check_sizes(shapes)
        except EmptyAxis as error:
            given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise DataError(f"the shapes {given} leave nothing to compute: {error}; make every axis longer") from error

    def close(self) -> None:
        """End the process of an isolated session; it also ends when the session is no longer referenced."""
        if self._isolated is not None:
            self._isolated.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the inputs as arrays; raise unless names, types and shapes match the ports."""
        try:
            feed = {name: np.asarray(array) for name, array in inputs.items()}
        except ValueError:
            feed = {name: _array(name, array) for name, array in inputs.items()}
        form = tuple([(name, array.dtype, array.shape) for name, array in feed.items()])
        # Remember accepted forms: for small networks the checks would take longer than the run.
        if form in self._accepted:
            return feed
        ports = {port.name: port for port in self.inputs}
        if feed.keys() != ports.keys():
            given = ", ".join(map(str, feed)) or "none"
            raise DataError(f"the graph's inputs are {', '.join(ports)}; {given} arrived")
        symbols: dict[str, tuple[int, str]] = {}
        for name, port in ports.items():
            _check(feed[name], port, symbols)
        if self._needs_elements and any(feed[name].shape != port.example for name, port in ports.items()):
            self._demand_elements({name: array.shape for name, array in feed.items()})
        if len(self._accepted) < _REMEMBERED:
            self._accepted.add(form)
        return feed


def _array(name: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"input {name!r} is no array: its rows differ in length ({error})") from error


def _demand_numbers(name: str, array: NDArray[Any]) -> None:
    """Raise unless no element is NaN; the sum of squares tells sooner than the elements, which are several arrays."""
    flat = array.reshape(-1)
    with np.errstate(over="ignore"):
        suspect = np.isnan(np.dot(flat, flat))
    if suspect and (missing := np.isnan(array)).any():
        place = ", ".join(map(str, np.argwhere(missing)[0]))
        raise DataError(
            f"input {name!r} has NaN at [{place}], {missing.sum():,} in all; the graph rounds activations to integers, "
            "where NaN becomes a number and the outputs would not show it. Replace NaN, or leave out these examples"
        )


def _check(array: NDArray[Any], port: Port, symbols: dict[str, tuple[int, str]]) -> None:
    """Raise unless an array has the type and shape of a port; ``symbols`` maps symbolic axes to (size, input)."""
    name, kind = port.name, DTYPES[port.dtype]
    if array.dtype != kind:
        raise DataError(f"input {name!r} takes {kind}, {array.dtype} arrived; use .astype('{kind}')")
    if array.ndim != len(port.shape):
        raise DataError(f"input {name!r} has the shape {_form(port)}, {array.shape} arrived")
    for axis, (size, asked) in enumerate(zip(array.shape, port.shape, strict=True)):
        known, where = symbols.setdefault(asked, (size, name)) if isinstance(asked, str) else (asked, name)
        if size != known:
            vary = [i for i, length in enumerate(port.shape) if isinstance(length, str) or i == axis]
            fix = f"if any length should do, make the file with dynamic=({', '.join(map(str, vary))})"
            other = fix if isinstance(asked, int) else f"{asked} is {known} in {where!r}"
            raise DataError(f"axis {axis} of input {name!r} {_form(port)} has size {size}; {other}")


def _form(port: Port) -> str:
    return f"({', '.join(map(str, port.shape))})"
