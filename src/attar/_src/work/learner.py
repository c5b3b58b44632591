"""Learner: a module in training under constraints, and the compressed model it becomes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import UnknownName, prefixed_errors
from attar._src.core.rescale import rescale
from attar._src.core.tensors import Codebook, CompressedTensor, Quantized
from attar._src.model.capture import CapturedModel
from attar._src.model.chains.derived import derived_value
from attar._src.model.dependencies.record import recorded_removals
from attar._src.model.programs import wrap
from attar._src.model.sites import Site, find_sites
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.model.weights import Weight, find_weights
from attar._src.work.compressed_model import MAIN, CompressedGraph, CompressedModel, FileInfo
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.parametrization import Parametrization
from attar._src.work.value_globs import matching_values
from attar._src.work.weight_view import WeightView

_NO_INFO = FileInfo()


@dataclass(frozen=True)
class ActivationPlace:
    """A site of the deployed graph, and the values of the captured program that are computed there."""

    sources: tuple[str, ...]
    site: Site


class _Tensors(Mapping[str, torch.Tensor]):
    """The parameters of a module by name, and the weights that it computes from them, with their present values."""

    def __init__(self, module: nn.Module, captured: CapturedModel) -> None:
        self._parameters = dict(module.named_parameters(remove_duplicate=False))
        self._captured = captured

    def __getitem__(self, name: str) -> torch.Tensor:
        known = self._parameters.get(name)
        return derived_value(self._captured.evaluation, self._captured.derived[name]) if known is None else known

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(self._parameters, self._captured.derived)

    def __len__(self) -> int:
        return len(self._parameters) + len(self._captured.derived)


class Learner:
    """A module in training.

    Args:
        module: training changes its parameters and buffers.
        traced: the untrained module as deployed, from the dry run.
        use: information for the file's user.
        coder: entropy coder of the file.

    Attributes:
        weights: the tensors that multiply data, by name: parameters, or what is computed from them alone.
        constraints: first to act first.
        record: an entry for each stage, stored in the file.
        warnings: sentences for the user (``CompressedModel.warnings``).
        unreached: of each training that was tried, the trainable parameters on which no loss depends.
    """

    def __init__(
        self,
        module: nn.Module,
        captured: CapturedModel,
        traced: TracedModel,
        *,
        use: FileInfo = _NO_INFO,
        coder: str = "auto",
    ) -> None:
        self.module, self.captured, self.use, self.coder = module, captured, use, coder
        self.weights: Mapping[str, Weight] = find_weights(traced.graph)
        self.constraints: list[Constraint] = []
        self.record: list[Mapping[str, Any]] = [*recorded_removals(module)]
        self.warnings: list[str] = []
        self.unreached: list[set[str]] = []
        self.traced = traced

    def restructure(self, module: nn.Module, captured: CapturedModel, traced: TracedModel) -> None:
        """Go on with another module, such as one with fewer channels; no constraint may be attached."""
        assert not self.constraints
        self.module, self.captured, self.traced = module, captured, traced
        self.weights = find_weights(traced.graph)

    def places(self, quantized: Collection[str] | None = None, floating: Collection[str] = ()) -> list[ActivationPlace]:
        """Return the sites to quantize if the layers of ``quantized`` weights (None: of all) run in integers.

        Values in ``floating`` (:meth:`floating_values`) stay in floating point.
        """
        kept = [name for name, captured in self.traced.origins.items() if captured in floating]
        return [
            ActivationPlace(tuple(self.traced.origins[name] for name in site.sources), site)
            for site in self._sites(self.traced, self.weights if quantized is None else quantized, kept)
            if all(name in self.traced.origins for name in site.sources)
        ]

    def floating_values(self, globs: Sequence[str]) -> frozenset[str]:
        """Return the values of the captured program that ``globs`` leave in floating point (``keep_activations``).

        Raises:
            UnknownName: a glob matches no layer and no value.
        """
        origins = self.traced.origins
        kept = matching_values({MAIN: self.traced.graph}, globs)[MAIN]
        return frozenset(origins[name] for name in kept if name in origins)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a weight: the parameter itself, not a copy, unless it is computed from parameters."""
        return self.weight_view().tensors[name]

    def select(self, globs: Sequence[str]) -> list[str]:
        """Return the weights whose name or layer matches any of ``globs``.

        Raises:
            UnknownName: a glob matches no weight.
        """
        chosen: set[str] = set()
        for glob in globs:
            found = {n for n in self.weights if fnmatchcase(n, glob) or fnmatchcase(n.rpartition(".")[0], glob)}
            if not found:
                raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in self.weights})
            chosen |= found
        return [name for name in self.weights if name in chosen]

    def attach(self, constraint: Constraint) -> None:
        """Add a constraint; on weights and values of both, it replaces an earlier one of its class or family.

        A constraint that still acts on other weights stays attached.
        """
        for earlier in list(self.constraints):
            if type(earlier) is type(constraint) or constraint.family == earlier.family != "":
                for old, new in ((earlier.weights, constraint.weights), (earlier.values, constraint.values)):
                    for name in new:
                        old.pop(name, None)
                if not earlier.weights and not earlier.values:
                    self.constraints.remove(earlier)
        self.constraints.append(constraint)
        self.constraints.sort(key=lambda each: each.order)
        weights = self.weight_view()
        for each in self.constraints:
            each.rebind(weights)

    def weight_view(self) -> WeightView:
        """Return the parameters, and the parametrizations that act on the weights now."""
        order = [(c.order, c.weights) for c in self.constraints]
        acting = {n: tuple((at, weights[n]) for at, weights in order if n in weights) for n in self.weights}
        return WeightView(_Tensors(self.module, self.captured), acting)

    def graph(self, *, train: bool) -> fx.GraphModule:
        """Return a program on the module's own parameters, with the parametrizations as submodules."""
        graph, nodes = self.captured.copy(train=train), self.captured.derived
        # Each wrap is inserted directly after the weight or value, so the first to act is inserted last.
        for index, constraint in reversed(list(enumerate(self.constraints))):
            weights = {nodes.get(name, name): each for name, each in constraint.weights.items()}
            wrap(graph, {**weights, **constraint.values}, f"attar_parametrization{index}_")
        for name, child in graph.named_children():
            if name.startswith("attar_parametrization"):
                child.train(train)
        return graph

    def warn(self, sentence: str) -> None:
        """Add a warning, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def update(self, progress: Progress) -> None:
        """Advance every constraint before a step."""
        weights = self.weight_view()
        for constraint in self.constraints:
            constraint.update(progress, weights)

    def finalize(self) -> None:
        """Let every constraint change the weights themselves at the end of a stage."""
        weights = self.weight_view()
        with torch.no_grad():
            for constraint in self.constraints:
                constraint.finalize(weights)

    def parametrizations(self, name: str) -> list[Parametrization]:
        """Return the parametrizations of a weight or value, first to act first."""
        both = [{**constraint.weights, **constraint.values} for constraint in self.constraints]
        return [each[name] for each in both if name in each]

    def compressed_weights(self) -> dict[str, CompressedTensor]:
        """Return every parametrized weight as it is stored, before batch-norms are folded."""
        weights = self.weight_view()
        found: dict[str, CompressedTensor] = {}
        with torch.no_grad():
            for name in self.weights:
                for each in weights.parametrizations(name):
                    each.eval()
                if last := weights.last(name):
                    with prefixed_errors(f"weight {name!r}"):
                        found[name] = last[0].to_compressed(last[1].detach())
        return found

    def deployed(self, *, fold: bool = True, emit: bool = True) -> CompressedModel:
        """Return the compressed model of the module as it is now.

        Args:
            fold: whether batch-norms are folded or merged; False if the module is trained further.
            emit: whether the graph has the nodes that constraints add (thresholds); its size hardly depends on them.
        """
        tensors = self.compressed_weights()
        quantized = {name for name, tensor in tensors.items() if isinstance(tensor, Quantized | Codebook)}
        sources = [source for place in self.places() for source in place.sources] if emit else []
        emitted = {n: add for n in sources for each in self.parametrizations(n) if (add := each.emit()) is not None}
        merge = fold and any(constraint.merges for constraint in self.constraints)

        def refuse(name: str, factor: NDArray[np.float64], axis: int) -> str | None:
            if not fold:
                return "it is trained further"
            follows = name not in tensors or rescale(tensors[name], factor, axis) is not None
            return None if follows else f"the scales of {name} do not follow its channels"

        traced = deploy_graph(self.module, self.captured, refuse=refuse, emit=emitted, merge=merge)
        for name, (factor, axis) in traced.folding.factors.items():
            if name in tensors:
                scaled = rescale(tensors[name], factor, axis)
                assert scaled is not None
                tensors[name] = scaled
        activations, rounded = self._grids(traced, quantized)
        kept = frozenset[str]().union(*(constraint.floating for constraint in self.constraints))
        deployed = traced if fold else self.traced
        floating = frozenset(name for name, captured in deployed.origins.items() if captured in kept)
        graphs = {
            MAIN: CompressedGraph(
                traced, activations, rounded, floating=floating, folded_later=None if fold else self.traced
            )
        }
        warnings = (*traced.warnings, *self.warnings)
        piece = CompressedModel(graphs, tensors, tuple(self.record), tuple(dict.fromkeys(warnings)))
        for constraint in self.constraints:
            piece = constraint.finish(piece)
        return piece

    def _sites(self, traced: TracedModel, quantized: Collection[str], kept: Collection[str] = ()) -> tuple[Site, ...]:
        weights = find_weights(traced.graph)
        floating = {reader for name in weights.keys() - set(quantized) for reader in weights[name].readers}
        return find_sites(traced.graph, traced.values, skip=lambda node: node.name in floating, floating=kept)

    def _rounding(self, value: str | None) -> Parametrization | None:
        """Return the last parametrization that may round a value; those that emit nodes act after the rounding."""
        every = [] if value is None else self.parametrizations(value)
        return next((each for each in reversed(every) if each.emit() is None), None)

    def _grids(self, traced: TracedModel, quantized: Collection[str]) -> tuple[dict[str, Activation], frozenset[str]]:
        """Return the grid of every value of every site whose sources all share one, and the sources."""
        grids: dict[str, Activation] = {}
        rounded: set[str] = set()
        for site in self._sites(traced, quantized):
            rounding = {self._rounding(traced.origins.get(name)) for name in site.sources}
            grid_of = rounding.pop()
            if rounding or grid_of is None:
                continue
            grids |= {value: grid for value in site.values if (grid := grid_of.grid(value)) is not None}
            rounded |= grids.keys() & set(site.sources)
        return {n.name: grids[n.name] for n in traced.graph.graph.nodes if n.name in grids}, frozenset(rounded)
