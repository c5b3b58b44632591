"""A part of a network at one level after the other, and values that runs of later parts may start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from attar._src.methods.allocate.candidates import Candidate
from attar._src.methods.allocate.changed.changed_runs import ChangedRuns
from attar._src.methods.allocate.level import Level
from attar._src.model.programs import set_tensor

#: How many bytes the values of all batches may have that the next layer may start from; others are computed again.
KEPT_BYTES = 1 << 29


@dataclass(frozen=True)
class PartChange:
    """A part of a program at one level after the other; at the end it is as it was."""

    program: fx.GraphModule
    before: Mapping[str, torch.Tensor]
    levels: Mapping[Level, Mapping[str, torch.Tensor]]

    @classmethod
    @contextmanager
    def of(cls, program: fx.GraphModule, levels: Mapping[Level, Candidate]) -> Iterator[PartChange]:
        changed = {key for each in levels.values() for key in each.tensors}
        before = {key: value for key, value in _tensors(program).items() if key in changed}
        rounded = {
            level: {key: torch.from_numpy(np.array(each.tensors[key].dense())) for key in each.tensors if key in before}
            for level, each in levels.items()
        }
        change = cls(program, before, rounded)
        try:
            yield change
        finally:
            change.to(None)

    def to(self, level: Level | None) -> None:
        """Set the tensors of a level; those before the change for None."""
        for key, value in {**self.before, **(self.levels[level] if level else {})}.items():
            set_tensor(self.program, key, value)


class KeptValues:
    """Values in front of the last layer for every batch, as far as they fit into ``KEPT_BYTES``."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, int], tuple[Mapping[fx.Node, Any], int]] = {}
        self._bytes = 0

    def pop(self, graph: str, batch: int) -> Mapping[fx.Node, Any]:
        values, size = self._values.pop((graph, batch), ({}, 0))
        self._bytes -= size
        return values

    def keep(self, graph: str, batch: int, runs: ChangedRuns) -> None:
        if self._bytes + runs.nbytes <= KEPT_BYTES:
            self._values[graph, batch] = runs.known, runs.nbytes
            self._bytes += runs.nbytes


def _tensors(program: fx.GraphModule) -> dict[str, torch.Tensor]:
    return {**dict(program.named_parameters(remove_duplicate=False)), **dict(program.named_buffers())}
