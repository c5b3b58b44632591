"""Hints: layers of a student learn to say what layers of its teacher say."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from attar._src.methods.objectives.paired_layers import PairedLayersTerm
from attar._src.methods.objectives.soft_targets import mean_over_valid
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective


class Hint(PairedLayersTerm):
    """``|u - r(v)|^2 / (2 size of u)``, summed over the pairs of layers, the mean over all positions
    that are no padding.

    u is the value of the teacher's layer at a position, v that of the student's, and r a projector with a bias from the
    channels of v to those of u: a linear map, the same at all positions, which for maps is a 1x1 convolution. It is
    trained with the student and thrown away. Romero et al. 2015, "FitNets: hints for thin deep nets", equation 3,
    divided by the number of elements so that a ``weight`` means the same for layers of any size; there the student is
    trained by hints alone first, here as the stage's terms and schedules say. Maps of different sizes are averaged down
    to the smaller.

    Attributes:
        teacher: a model's name. It has to be a program: a file and a cache know outputs alone.
        layers: modules of the student by their paths, such as ``layer3.1`` -> modules of the teacher.
        ignore_index: the target of examples, or of positions as they are compared, that do not count.
    """

    name: Literal["hint"] = "hint"

    def build(self, learner: Learner) -> Objective:
        """Return the loss; its projectors are made when the sizes of the layers are seen."""
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
        apart = (_apart(project(student), teacher) for project, (student, teacher) in pairs)
        return torch.stack([mean_over_valid(each, sources, self.term.ignore_index) for each in apart]).sum()


def _apart(guided: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
    """Return half the mean square over channels at each position ``(n, ...)``."""
    # Under autocast the projection comes in bfloat16.
    return (guided.to(hint.dtype) - hint).square().mean(-1) / 2
