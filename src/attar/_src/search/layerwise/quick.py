"""Quick trials: points of a layerwise problem judged by the network with these weights, and bytes by prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from attar._src.core.fields import main_output_name
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.allocate.judge import Judge, Labelled, ModelOutputs, OutputError, model_outputs
from attar._src.model.programs import copy_graph, set_tensor, state_of
from attar._src.search.goal import Goal
from attar._src.search.layerwise.levels import SolvedLevels
from attar._src.search.layerwise.problem import LayerwiseProblem
from attar._src.search.space import Point
from attar._src.work.calibration_inputs import CalibrationInputs

#: Shares of the examples after which a trial may end.
_PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
#: Standard errors by which the drop must be beyond the bound for a trial to end there.
_SURE = 3.0


@dataclass(frozen=True)
class QuickFigures:
    """What a quick trial found.

    Attributes:
        file_bytes: predicted.
        drop: in points, on the examples that were seen.
        examples: that were seen: fewer than all where the bound was out of reach.
        ms: predicted; None without a table of times.
        ruined: whether most of what the network knows is lost on these examples.
        others: the most that another output lost.
    """

    file_bytes: int
    drop: float
    examples: int
    ms: float | None = None
    ruined: bool = False
    others: float | None = None


class QuickTrials:
    """Judges points.

    A trial ends early where the drop so far is beyond the bound of the goal by three standard errors of a share: with
    12 of 62 predictions changed, 3 sqrt(0.19 / 62) = 17 points. Most points of a space lose so much that a sixteenth
    of the examples tells.

    Args:
        solved: the levels.
        held: examples that calibration does not see, with targets if there are any.
        labelled: what is known of the right outputs.
        goal: whose bound on the drop ends trials; None to see all examples.
        times: the problem in milliseconds, for predicted times.
    """

    def __init__(
        self,
        solved: SolvedLevels,
        held: CalibrationInputs,
        labelled: Labelled,
        goal: Goal | None = None,
        times: LayerwiseProblem | None = None,
    ) -> None:
        self.solved, self.goal, self.times = solved, goal, times
        traced = solved.model.main.traced
        self._program = copy_graph(solved.model.unrounded(next(iter(solved.model.graphs))))
        output = main_output_name({port.name: port.dtype.startswith("f") for port in traced.outputs})
        count = len(held.batches)
        self._stops = sorted({max(1, math.ceil(share * count)) for share in _PARTS})
        self._judges = {stop: Judge.of(self._program, _first(held, stop), output, labelled) for stop in self._stops}
        self._examples = {stop: _first(held, stop).examples for stop in self._stops}
        self._batches = [tuple(map(_fast, batch)) for batch in held.batches]
        self._before = {name: value.detach() for name, value in state_of(self._program).items()}
        for name, value in self._before.items():
            set_tensor(self._program, name, _fast(value))

    @property
    def unit(self) -> str:
        """What a drop counts."""
        return self._judges[self._stops[-1]].unit

    def figures(self, point: Point) -> QuickFigures:
        """Return what a point takes and loses."""
        changed = self._put(point)
        outputs: list[ModelOutputs] = []
        try:
            for stop in self._stops:
                with torch.no_grad():
                    outputs += [model_outputs(self._program(*batch)) for batch in self._batches[len(outputs) : stop]]
                judge = self._judges[stop]
                seen = judge.judge(outputs)
                drop, examples = judge.points(seen), self._examples[stop]
                if self._out_of_reach(drop, seen, examples):
                    break
        finally:
            for name in changed:
                set_tensor(self._program, name, _fast(self._before[name]))
        ms = None if self.times is None else self.times.cost(point)
        cost = round(self.solved.problem.cost(point))
        return QuickFigures(cost, drop, examples, ms, judge.ruins(seen), seen.worst_other)

    def _out_of_reach(self, drop: float, seen: OutputError, examples: int) -> bool:
        if self.goal is None or self.goal.max_drop is None or seen.changed is None:
            return not math.isfinite(drop)
        error = 100 * math.sqrt(seen.changed / max(examples, 1))
        return not math.isfinite(drop) or drop - _SURE * error > self.goal.max_drop

    def _put(self, point: Point) -> list[str]:
        """Give the program the weights of a point; return the names of what changed."""
        tensors: dict[str, CompressedTensor] = {}
        for name, level in self.solved.levels(point).items():
            tensors |= self.solved.candidates[name][level].tensors
        for name, tensor in tensors.items():
            set_tensor(self._program, name, _fast(torch.from_numpy(np.array(tensor.dense()))))
        return [*tensors]


def _first(held: CalibrationInputs, batches: int) -> CalibrationInputs:
    return CalibrationInputs(held.batches[:batches], held.names, held.axes, targets=held.targets[:batches])


def _fast(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor with channels last, in which convolutions take half the time on a processor."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
