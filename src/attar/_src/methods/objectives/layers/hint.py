"""FitNets hints: regress the teacher's layers from the student's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from attar._src.methods.objectives.layers.paired_layers import PairedLayersTerm
from attar._src.methods.objectives.soft_targets import mean_over_valid
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective


class Hint(PairedLayersTerm):
    """``|u - r(v)|^2 / (2 channels of u)``, summed over the pairs of layers, averaged over unpadded positions.

    u and v are the values of the teacher's and the student's layer at a position; r is a linear projector with bias
    from the channels of v to those of u, shared by all positions (for maps a 1x1 convolution). It is trained with the
    student and discarded. Romero et al. 2015, "FitNets: hints for thin deep nets", equation 3, divided by the number of
    elements so that a ``weight`` means the same for layers of any size. The paper first trains with hints alone; here
    the stage's terms and schedules decide.
    """

    name: Literal["hint"] = "hint"

    def build(self, learner: Learner) -> Objective:
        return _Hint(self)


class _Hint(Objective):
    def __init__(self, term: Hint) -> None:
        super().__init__()
        self.term, self.projectors = term, nn.ModuleList()

    def prepare(self, sources: LossInputs) -> None:
        for student, teacher in self.term.pairs(sources):
            self.projectors.append(nn.Linear(student.shape[-1], teacher.shape[-1]))

    def forward(self, sources: LossInputs) -> torch.Tensor:
        pairs = zip(self.projectors, self.term.pairs(sources), strict=True)
        # Under autocast the projection is bfloat16.
        errors = ((project(student).to(teacher.dtype) - teacher) for project, (student, teacher) in pairs)
        losses = [mean_over_valid(each.square().mean(-1) / 2, sources, self.term.ignore_index) for each in errors]
        return torch.stack(losses).sum()
