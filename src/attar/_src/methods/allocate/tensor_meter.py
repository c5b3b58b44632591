"""Measure the tensors of a model, each alone, or with all others at levels that were chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx

from attar._src.artifact.packing import AUTO
from attar._src.core.digest import digest
from attar._src.core.fields import main_output_name
from attar._src.core.interrupt import raise_if_interrupted
from attar._src.core.progress import Bar
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.allocate.candidates import AtLevel, Candidate, candidates, changed_tensors
from attar._src.methods.allocate.changed.change import KeptValues, PartChange
from attar._src.methods.allocate.coded_bytes import coded_bytes
from attar._src.methods.allocate.curvature import Estimates, curvature
from attar._src.methods.allocate.judge import model_outputs
from attar._src.methods.allocate.level import FLOAT, Level
from attar._src.methods.allocate.measure import AboutPart, SensitivityMeter
from attar._src.model.programs import copy_graph
from attar._src.work.compressed_model import CompressedModel

#: Stands for the levels of all tensors together.
_CHOSEN = Level(0)


@dataclass(frozen=True, kw_only=True)
class TensorMeter(SensitivityMeter):
    """Measures the tensors of a model; candidates are held, and their rounding errors while gradients are taken: four
    bytes an element and level.

    Attributes:
        model: as it is.
        at: level -> the model with all these tensors at it.
        gradients: whether there are estimates.
        coder: of the file whose bytes count.
    """

    model: CompressedModel
    at: AtLevel
    gradients: bool = True
    coder: str = AUTO

    @cached_property
    def programs(self) -> dict[str, fx.GraphModule]:
        return {name: copy_graph(self.model.unrounded(name)) for name in self.model.graphs}

    @property
    def outputs(self) -> dict[str, str]:
        return {
            name: main_output_name({port.name: port.dtype.startswith("f") for port in graph.traced.outputs})
            for name, graph in self.model.graphs.items()
        }

    def digest(self) -> str:
        return tensors_digest(self.model)

    @cached_property
    def candidates(self) -> dict[str, dict[Level, Candidate]]:
        """Tensor -> level -> the tensor at it."""
        return candidates(self.model, self.names, self.levels, self.at, self.coder)

    def at_levels(self, name: str) -> Mapping[Level, Candidate]:
        return self.candidates[name]

    def about(self, name: str) -> AboutPart:
        weights, stored, own = self.model.weights(), self.model.stored(), self.candidates[name]
        together = {key for each in own.values() for key in each.tensors}
        return AboutPart(
            role=weights[name].role if name in weights else "tensor",
            shape=tuple(own[self.levels[0]].tensors[name].shape),
            before=sum(coded_bytes({key: stored[key] for key in together}, self.coder).values()),
        )

    def readers(self, name: str) -> Sequence[str]:
        return [graph for graph, own in self.model.graphs.items() if name in own.traced.names]

    def together(self, chosen: Mapping[str, Level]) -> float:
        """Return the error with all tensors at their chosen levels.

        Raises:
            KeyboardInterrupt: the work was interrupted.
        """
        total = 0.0
        with self._at(chosen), torch.no_grad():
            for graph, program in self.programs.items():
                made = []
                for batch in self.inputs[graph].batches:
                    made.append(model_outputs(program(*batch)))
                    raise_if_interrupted()
                total += self.judges[graph].judge(made).error
        return total

    def around(self, chosen: Mapping[str, Level], near: Mapping[str, Sequence[Level]]) -> dict[str, dict[Level, float]]:
        """Return tensor -> level near its chosen one -> the error with all other tensors at their chosen levels.

        Raises:
            KeyboardInterrupt: the work was interrupted.
        """
        readers, kept = {name: self.readers(name) for name in near}, KeptValues()
        passes = sum(len(self.inputs[graph].batches) for graphs in readers.values() for graph in graphs)
        found = dict[str, dict[Level, float]]()
        with self._at(chosen), Bar("sensitivity around the allocation", passes) as bar:
            for name, levels in near.items():
                bar.say(name)
                seen = self.seen(readers[name], self._instead(name, levels, chosen), kept, bar)
                found[name] = {level: each.error for level, each in seen.items()}
        return found

    @cached_property
    def _known(self) -> dict[Level, dict[str, dict[str, CompressedTensor]]]:
        """Level -> tensor -> it and what changes with it at this level, as far as they were needed."""
        return {}

    def _changed(self, name: str, level: Level) -> Mapping[str, CompressedTensor]:
        """Return a tensor at a level, and what changes with it; nothing in floating point."""
        if level.value == FLOAT:
            return {}
        if "candidates" in vars(self):  # made when the tensors were measured alone
            return self.candidates[name][level].tensors
        if level not in self._known:
            self._known[level] = changed_tensors(self.model, self.names, self.at(level))
        return self._known[level][name]

    def _instead(self, name: str, levels: Sequence[Level], chosen: Mapping[str, Level]) -> dict[Level, Candidate]:
        """Return a tensor at levels in place of its chosen one; what does not change at one of them is as it was."""
        changed, before = {level: self._changed(name, level) for level in levels}, self.model.stored()
        owner = name.rpartition(".")[0]
        beside = [other for other in chosen if other != name and other.rpartition(".")[0] == owner]
        # What another tensor of the layer changes is its own, such as a bias of several weights.
        others = {key for other in beside for key in (other, *self._changed(other, chosen[other]))}
        keys = {key for each in (*changed.values(), self._changed(name, chosen[name])) for key in each} - others
        was = {key: before[key] for key in (name, *keys)}
        return {
            level: Candidate(was | {key: value for key, value in each.items() if key not in others}, 0.0)
            for level, each in changed.items()
        }

    @contextmanager
    def _at(self, chosen: Mapping[str, Level]) -> Iterator[None]:
        """Set all tensors of the programs to their chosen levels."""
        _ = self.judges  # whose reference is the network as it was
        with ExitStack() as changes:
            for graph, program in self.programs.items():
                own = [self._changed(name, level) for name, level in chosen.items() if graph in self.readers(name)]
                all_of = Candidate({key: tensor for each in own for key, tensor in each.items()}, 0.0)
                changes.enter_context(PartChange.of(program, {_CHOSEN: all_of})).to(_CHOSEN)
            yield

    def estimates(self, names: Sequence[str]) -> Estimates:
        found: Estimates = {name: {} for name in names}
        for graph, program in self.programs.items() if self.gradients else ():
            own = {name: self.candidates[name] for name in names}
            batches, one = self.inputs[graph], self.model.graphs[graph].traced.any_batch
            seen = curvature(program, batches, self.judges[graph], own, one_by_one=one, seed=self.seed)
            for name, levels in seen.items():
                for level, value in levels.items():
                    found[name][level] = found[name].get(level, 0.0) + value
        return found


def tensors_digest(model: CompressedModel) -> str:
    """Return the SHA-256 of the names and values of a model's tensors."""
    values = {name: tensor.dense() for name, tensor in model.tensors.items()}
    return digest(part for name, value in model.state().items() for part in (name, values.get(name, value)))
