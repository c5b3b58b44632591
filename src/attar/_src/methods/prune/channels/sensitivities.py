"""Sensitivities of channels: each group alone, with shares of its units masked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import fx, nn

from attar._src.core.digest import digest
from attar._src.core.errors import SpecError
from attar._src.core.fields import main_output_name
from attar._src.core.tensors import Dense
from attar._src.methods.allocate.candidates import Candidate
from attar._src.methods.allocate.judge import UNLABELLED, Labelled, OutputError, model_outputs
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.measure import AboutPart, SensitivityMeter
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.prune.channels.choose import ChannelChoice
from attar._src.methods.prune.channels.costs import ChannelCosts
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.check import masked_state
from attar._src.model.dependencies.find import ChannelGroup, Dependencies
from attar._src.model.interface import flatten_outputs
from attar._src.model.programs import copy_graph, state_of
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import MAIN

#: Shares of a group's units that are tried, if there is no table of sensitivities.
REMOVED_SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
#: Bytes of an element.
FLOAT_BYTES = 4


@dataclass(frozen=True)
class JudgedChannels:
    """The examples on which groups of channels are measured, and for which the weights that remain are solved.

    Attributes:
        inputs: real ones.
        labelled: what is known of the right outputs.
        more: those for which weights are solved; ``inputs`` if None.
    """

    inputs: CalibrationInputs
    labelled: Labelled = UNLABELLED
    more: CalibrationInputs | None = None


@dataclass(frozen=True, kw_only=True)
class ChannelMeter(SensitivityMeter):
    """Measures groups of channels: of each, units with the lowest scores are masked, all else is as it was.

    Masked and removed channels give the same outputs (:mod:`~attar._src.model.dependencies.check`).

    Attributes:
        module: whose channels they are.
        captured: the module, captured.
        found: what can be removed.
        choice: of units, by their scores.
    """

    module: nn.Module
    captured: CapturedModel
    found: Dependencies
    choice: ChannelChoice

    @cached_property
    def programs(self) -> dict[str, fx.GraphModule]:
        return {MAIN: copy_graph(self.captured.evaluation)}

    @cached_property
    def outputs(self) -> dict[str, str]:
        with torch.no_grad():
            made = flatten_outputs(self.programs[MAIN](*self.captured.example))
        return {MAIN: main_output_name({name: each.is_floating_point() for name, each in made.items()})}

    @property
    def macs(self) -> int:
        return self.costs.macs(())

    @cached_property
    def costs(self) -> ChannelCosts:
        """What is left without units."""
        return ChannelCosts(self.found, self.module)

    def digest(self) -> str:
        return module_digest(self.module)

    def at_levels(self, name: str) -> Mapping[Level, Candidate]:
        return {level: self._without(self._group(name), level) for level in self.levels}

    def about(self, name: str) -> AboutPart:
        group = self._group(name)
        return AboutPart("channels", (len(group.units),), self._bytes(group, ()))

    def error_without(self, units: Collection[int]) -> OutputError:
        """Return how far the outputs of the module without these units are from its own."""
        program, state = self.programs[MAIN], masked_state(self.programs[MAIN], self.found, units)
        with torch.no_grad():
            made = [torch.func.functional_call(program, state, batch) for batch in self.inputs[MAIN].batches]
        return self.judges[MAIN].judge(map(model_outputs, made))

    def _group(self, name: str) -> ChannelGroup:
        return next(group for group in self.found.groups if group.name == name)

    def _without(self, group: ChannelGroup, level: Level) -> Candidate:
        units = self.choice.of_group(self.found, group, level.value)
        only = {name: self.found.state[name] for name in self._names(group)}
        masked = masked_state(self.module, replace(self.found, state=only), units)
        tensors = {name: Dense(np.ascontiguousarray(masked[name].numpy())) for name in only}
        return Candidate(tensors, self._bytes(group, units), macs=self.costs.macs(units))

    def _names(self, group: ChannelGroup) -> list[str]:
        """Return the parameters and buffers that have channels of a group."""
        units = torch.tensor(group.units)
        return [name for name, own in self.found.state.items() if any(torch.isin(each, units).any() for each in own)]

    def _bytes(self, group: ChannelGroup, units: Collection[int]) -> float:
        state = state_of(self.module)
        whole = sum({id(state[name]): state[name].numel() for name in self._names(group)}.values())
        return FLOAT_BYTES * (whole - self.costs.elements(()) + self.costs.elements(units))


def module_digest(module: nn.Module) -> str:
    """Return the SHA-256 of the names and values of a module's tensors."""
    return digest(part for item in state_of(module).items() for part in item)


def channel_table(path: str, meter: ChannelMeter) -> SensitivityTable:
    """Return the table at a path.

    Raises:
        AttarError: there is none, or it is damaged.
        SpecError: it is of another module, score or groups.
    """
    table = SensitivityTable.read(path)
    if table.what != "channels" or table.model != meter.digest():
        raise SpecError(
            "the table of sensitivities is of another model, or not of channels; measure again with --what channels"
        )
    if table.method.get("score") != meter.method["score"]:
        raise SpecError(
            f"the table of sensitivities was measured with the score {table.method.get('score')}, here it is "
            f"{meter.method['score']}; give the same score=, or leave the table out"
        )
    if missing := [name for name in meter.names if name not in {layer.name for layer in table.layers}]:
        raise SpecError(f"the table of sensitivities lacks {missing[:3]}; measure without keep, or exclude them here")
    return table
