"""What one pass over the inputs found for the stage ``quantize``: each weight at one or more levels, and statistics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attar._src.core.tensors import CompressedTensor
from attar._src.methods.allocate.level import Level
from attar._src.methods.quantize.ptq.observers.observed import Observed
from attar._src.methods.quantize.ptq.solvers.solver import InputStatistics
from attar._src.methods.quantize.ptq.solvers.weight_inputs import joined_statistics
from attar._src.model.statistics import Statistic
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo


@dataclass(frozen=True)
class Solutions:
    """Weights as they were solved.

    Statistics of inputs are as large as the network and larger; rounded weights are small. So several levels are solved
    in one pass, as soon as the statistics are there, and models at any choice of levels are made of these.

    Attributes:
        model: before the stage, with the values that it leaves in floating point.
        use: what the file is for, if known.
        inputs: of each graph.
        state: values of the tensors before they are rounded, as earlier stages stored them.
        tensors: tensor -> level -> the tensor at it.
        shared: weight by which several graphs multiply -> graph -> the statistics of its inputs there.
        observed: graph -> what was observed of it.
        warnings: about the calibration.
    """

    model: CompressedModel
    use: FileInfo | None
    inputs: Mapping[str, CalibrationInputs]
    state: Mapping[str, torch.Tensor]
    tensors: dict[str, dict[Level, CompressedTensor]] = field(default_factory=dict)
    shared: dict[str, dict[str, InputStatistics | None]] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def unseen(self) -> dict[str, str]:
        """Weight that was solved without the inputs that its solver would see -> why: those of no graph are known."""
        seen = {name for name, graphs in self.shared.items() if any(each is not None for each in graphs.values())}
        every = {name: why for found in self.observed.values() for name, why in found.unseen.items()}
        return {name: why for name, why in every.items() if name not in seen}

    def joined(self, name: str, graph: str, statistics: InputStatistics | None) -> dict[type[Statistic], Any] | None:
        """Note what a weight multiplies in one of several graphs, and return what it does in all so far."""
        known = self.shared.setdefault(name, {})
        known[graph] = statistics
        return joined_statistics(known.values())

    def pruned(self, names: Collection[str]) -> dict[str, NDArray[np.bool_]]:
        """Return which elements of these tensors a stage before pruned, of tensors that have any."""
        whole, known = self.model.state(), self.model.tensors.keys() & set(names)
        zeros = {name: (self.state[name] == 0) & (whole[name] != 0) for name in known}
        return {name: each.numpy() for name, each in zeros.items() if each.any()}
