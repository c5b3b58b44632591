"""Objective: a loss from named sources. A recipe's objective is a weighted sum of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from attar._src.train.batch import Batch
from attar._src.work.weight_view import WeightView


@dataclass(frozen=True)
class LossInputs:
    """Inputs of an objective.

    Attributes:
        outputs: the student's main output (``model.outputs.main_output``), ``(N, ..., classes)`` for a classifier.
        every: all outputs of the student.
        batch: inputs and targets.
        teachers: model name -> its main output for the same inputs, without gradient.
        progress: share of the stage done, 0 to 1.
        features: module path -> its output in the student, for the paths the objectives ask for.
        teacher_features: model name -> module path -> its output, without gradient.
        weights: the student's weights and their parametrizations.
    """

    outputs: torch.Tensor
    every: tuple[torch.Tensor, ...]
    batch: Batch
    teachers: Mapping[str, torch.Tensor]
    progress: float
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    weights: WeightView = field(default_factory=WeightView)


class Objective(nn.Module):
    """A loss. Its parameters (projectors), if any, are trained with the student's and kept in checkpoints."""

    def prepare(self, sources: LossInputs) -> None:
        """Create the parameters whose sizes follow from features; called once before training if a term asks for any.

        Args:
            sources: of a few examples without targets. The stage's seed determines random numbers drawn here.
        """

    def forward(self, sources: LossInputs) -> torch.Tensor:
        """Return the loss, a scalar: the mean over the examples of the batch."""
        raise NotImplementedError
