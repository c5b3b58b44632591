"""The damping term: pulls weights to the centre of their codes, which stops oscillation between two codes."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.methods.quantize.grid_constraint import positions_on_grids
from attar._src.train.schedule import Schedule, Scheduled
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term


class Damping(Term):
    """Squared distance between weights and rounded weights (Nagel et al. 2022, "Overcoming oscillations in
    quantization-aware training", section 4.2).

    With w^ the rounded weight, which gets no gradient, and n, p the smallest and largest code,

        L = sum (w^ - clip(w, s n, s p))^2

    At s = 0.1 a weight of 0.26 is rounded to 0.3 and adds 0.0016. Weights outside the range are not pulled; steps and
    offsets get no gradient. Weights should move freely at first, so ``weight`` should grow over the stage, as the
    default does. Weights must be on an evenly spaced grid, such as that of ``lsq`` or ``quantize``.
    """

    name: Literal["damping"] = "damping"
    weight: Scheduled = Schedule(start=0.0, stop=0.01, shape="cosine")

    def build(self, learner: Learner) -> Objective:
        positions_on_grids(learner, "damping")
        return _Damping()


class _Damping(Objective):
    def forward(self, sources: LossInputs) -> torch.Tensor:
        weights, total = sources.weights, torch.zeros((), device=sources.outputs.device)
        for name in weights.acting:
            if (last := weights.last(name)) is None:
                continue
            grid, value = last
            with torch.no_grad():
                positions = grid.grid_positions(value)
                if positions is None:
                    continue
                inside = positions.at.clamp(positions.low, positions.high)
                middle = value - (inside - positions.codes()) * positions.scale
            total = total + (value - middle).square().sum()
        return total
