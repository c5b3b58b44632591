"""Learner: a module in training, with what it is held to; at the end, a workpiece to pack."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import UnknownName
from attar._src.core.rescale import rescale
from attar._src.core.tensors import Codebook, CompressedTensor, Quantized
from attar._src.model.capture import CapturedModel, wrap
from attar._src.model.sites import Site, find_sites
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.model.weights import Weight, find_weights
from attar._src.work.compressed_model import MAIN, CompressedGraph, CompressedModel, FileInfo
from attar._src.work.constraint import Constraint, GridPositions, Parametrization, Progress

_NOTHING_SAID = FileInfo()


@dataclass(frozen=True)
class ActivationPlace:
    """A site of the deployed graph as the captured program knows it.

    Attributes:
        sources: captured values that are computed there; they share one grid.
        site: the values of the deployed graph.
    """

    sources: tuple[str, ...]
    site: Site


class Learner:
    """A module in training.

    Args:
        module: the module itself; training changes its parameters and buffers.
        captured: its two programs.
        traced: what it looked like when it was deployed untrained (the dry run).
        use: what its file will tell its user.
        coder: entropy coder of its file.

    Attributes:
        weights: the parameters that multiply data, by name.
        constraints: what it is held to, in the order in which it acts.
        record: what each stage did; it travels in the file.
    """

    def __init__(
        self,
        module: nn.Module,
        captured: CapturedModel,
        traced: TracedModel,
        *,
        use: FileInfo = _NOTHING_SAID,
        coder: str = "rans",
    ) -> None:
        self.module, self.captured, self.use, self.coder = module, captured, use, coder
        self.weights: Mapping[str, Weight] = find_weights(traced.graph)
        self.constraints: list[Constraint] = []
        self.record: list[Mapping[str, Any]] = []
        self.traced = traced

    def places(self, quantized: Collection[str] | None = None) -> list[ActivationPlace]:
        """Return where activations can be held.

        Args:
            quantized: the weights whose layers shall run in integers; None for all.
        """
        return [
            ActivationPlace(tuple(self.traced.origins[name] for name in site.sources), site)
            for site in self._sites(self.traced, self.weights if quantized is None else quantized)
            if all(name in self.traced.origins for name in site.sources)
        ]

    def tensor(self, name: str) -> torch.Tensor:
        """Return the parameter called ``name``: itself, not a copy."""
        parameter = dict(self.module.named_parameters(remove_duplicate=False))[name]
        assert isinstance(parameter, torch.Tensor)
        return parameter

    def select(self, globs: Sequence[str]) -> list[str]:
        """Return the weights that any of ``globs`` matches, by themselves or by their layer.

        Raises:
            UnknownName: a glob matches none.
        """
        chosen: set[str] = set()
        for glob in globs:
            found = {n for n in self.weights if fnmatchcase(n, glob) or fnmatchcase(n.rpartition(".")[0], glob)}
            if not found:
                raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in self.weights})
            chosen |= found
        return [name for name in self.weights if name in chosen]

    def attach(self, constraint: Constraint) -> None:
        """Hold the module to a constraint; it takes the place of an earlier one of its class or family where both act.

        Where only one acts it goes on acting, and neither says that it left what the other holds.
        """
        for earlier in list(self.constraints):
            alike = constraint.family and earlier.family == constraint.family
            if type(earlier) is type(constraint) or alike:
                for one, other in ((earlier, constraint), (constraint, earlier)):
                    for name in (*other.weights, *other.values):
                        one.left.pop(name, None)
                for name in constraint.weights:
                    earlier.weights.pop(name, None)
                for name in constraint.values:
                    earlier.values.pop(name, None)
                if not earlier.weights and not earlier.values:
                    self.constraints.remove(earlier)
        self.constraints.append(constraint)
        self.constraints.sort(key=lambda each: each.order)

    def graph(self, *, train: bool) -> fx.GraphModule:
        """Return a program on the module's own parameters that reads what the constraints make of weights and values.

        The constraints are its submodules: moving it to a device or asking it for parameters includes theirs.
        """
        graph = self.captured.copy(train=train)
        # Each wrap goes directly emitted the weight or value, so the one to act first goes in last.
        for index, constraint in reversed(list(enumerate(self.constraints))):
            wrap(graph, {**constraint.weights, **constraint.values}, f"held{index}_")
        for name, child in graph.named_children():
            if name.startswith("held"):
                child.train(train)
        return graph

    def update(self, progress: Progress) -> None:
        """Let every constraint move on before a step."""
        for constraint in self.constraints:
            constraint.update(progress, self.values_of(constraint))

    def finalize(self) -> None:
        """Let every constraint change the weights themselves at the end of a stage."""
        with torch.no_grad():
            for constraint in self.constraints:
                constraint.finalize(self.values_of(constraint))

    def values_of(self, constraint: Constraint) -> dict[str, torch.Tensor]:
        """Return the current value of every weight a constraint holds, itself, without gradient."""
        return {name: self.tensor(name).detach() for name in constraint.weights}

    def parametrizations(self, name: str) -> list[Parametrization]:
        """Return what a weight or value is held to, in the order in which it acts."""
        both = [{**constraint.weights, **constraint.values} for constraint in self.constraints]
        return [held[name] for held in both if name in held]

    def grid_positions(self) -> dict[str, GridPositions]:
        """Return where every weight on an evenly spaced grid lies between its codes, with gradient."""
        found = {}
        for name in self.weights:
            held = self.parametrizations(name)
            if held:
                value = self.tensor(name)
                for each in held[:-1]:
                    value = each(value)
                positions = held[-1].grid_positions(value)
                if positions is not None:
                    found[name] = positions
        return found

    def compressed_weights(self) -> dict[str, CompressedTensor]:
        """Return every weight under constraints as it is stored, before batch-norms are folded."""
        found: dict[str, CompressedTensor] = {}
        with torch.no_grad():
            for name in self.weights:
                held = [each.eval() for each in self.parametrizations(name)]
                if held:
                    value = self.tensor(name).detach()
                    for each in held[:-1]:
                        value = each(value)
                    found[name] = held[-1].to_compressed(value)
        return found

    def deployed(self, *, emit: bool = True) -> CompressedModel:
        """Return the module as it is now, with the tensors and grids its constraints ask for.

        Args:
            emit: whether the graph has the nodes that constraints add (thresholds); its size hardly depends on them.
        """
        baked = self.compressed_weights()
        emitted = {}
        for place in self.places():
            for source in place.sources:
                for held in self.parametrizations(source):
                    add = held.emit()
                    if emit and add is not None:
                        emitted[source] = add
        merge = any(constraint.merges for constraint in self.constraints)

        def refuse(name: str, factor: NDArray[np.float64], axis: int) -> str | None:
            follows = name not in baked or rescale(baked[name], factor, axis) is not None
            return None if follows else f"the scales of {name} do not follow its channels"

        traced = deploy_graph(self.module, self.captured, refuse=refuse, emit=emitted, merge=merge)
        factors = traced.folding.factors
        tensors: dict[str, CompressedTensor] = {}
        for name, tensor in baked.items():
            scaled = rescale(tensor, *factors[name]) if name in factors else tensor
            assert scaled is not None
            tensors[name] = scaled
        quantized = {name for name, tensor in baked.items() if isinstance(tensor, Quantized | Codebook)}
        activations, rounded = self._grids(traced, quantized)
        graphs = {MAIN: CompressedGraph(traced, activations, rounded)}
        piece = CompressedModel(graphs, tensors, tuple(self.record))
        for constraint in self.constraints:
            piece = constraint.finish(piece)
        return piece

    def _sites(self, traced: TracedModel, quantized: Collection[str]) -> tuple[Site, ...]:
        floating = {
            reader for name, w in find_weights(traced.graph).items() if name not in quantized for reader in w.readers
        }
        return find_sites(traced.graph, traced.values, skip=lambda node: node.name in floating)

    def _rounding(self, value: str) -> list[Parametrization]:
        """Return the last that may round a value: what adds nodes emitted it follows the rounding."""
        return [held for held in self.parametrizations(value) if held.emit() is None][-1:]

    def _grids(self, traced: TracedModel, quantized: Collection[str]) -> tuple[dict[str, Activation], frozenset[str]]:
        """Return the grid of every value of every site whose sources are all held to one, and the sources."""
        grids: dict[str, Activation] = {}
        rounded: set[str] = set()
        for site in self._sites(traced, quantized):
            held = [self._rounding(traced.origins[name]) for name in site.sources if name in traced.origins]
            if len(held) < len(site.sources) or not all(held) or len({id(each[0]) for each in held}) > 1:
                continue
            found = {value: held[0][0].grid(value) for value in site.values}
            grids |= {value: grid for value, grid in found.items() if grid is not None}
            rounded |= {name for name in site.sources if name in grids}
        place = {node.name: position for position, node in enumerate(traced.graph.graph.nodes)}
        return dict(sorted(grids.items(), key=lambda item: place[item[0]])), frozenset(rounded)
