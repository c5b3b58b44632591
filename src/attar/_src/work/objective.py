"""Objective: a loss. The objective of a stage is a weighted sum of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.train.batch import Batch
from attar._src.work.weight_view import WeightView

if TYPE_CHECKING:
    from attar._src.work.learner import Learner


@dataclass(frozen=True)
class LossInputs:
    """Inputs of an objective; what comes from teachers has no gradient.

    Attributes:
        outputs: the student's main output; of a classifier ``(N, C)``, ``(N, ..., C)`` or ``(N, C, ...)``.
        every: all outputs of the student, in order.
        batch: the inputs and ``batch.targets``.
        teachers: model name -> its main output for the same inputs.
        progress: share of the stage done, 0 to 1.
        features: module path -> its output in the student, for the paths the objectives ask for.
        teacher_features: model name -> module path -> its output.
        teacher_outputs: model name -> all its outputs by name, of the teachers that are looked into.
        names: of ``every``; those of a tuple are their places.
        weights: the weights with the effect of the constraints.
        layout: the class axis of the outputs, and the target to ignore.
    """

    outputs: torch.Tensor
    every: tuple[torch.Tensor, ...]
    batch: Batch
    teachers: Mapping[str, torch.Tensor]
    progress: float
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    teacher_outputs: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    weights: WeightView = field(default_factory=WeightView)
    layout: ClassLayout = FROM_SHAPES
    names: tuple[str, ...] = ()

    @property
    def target_shape(self) -> tuple[int, ...] | None:
        """The shape of the targets; None without targets."""
        return None if self.batch.targets is None else tuple(self.batch.targets.shape)


class Objective(nn.Module):
    """A loss. Its parameters (projectors) are trained with the student's and kept in checkpoints."""

    def prepare(self, sources: LossInputs) -> None:
        """Create the parameters whose sizes follow from features, from a few examples without targets.

        Called once before training if a term asks for features, under the stage's seed.
        """

    def finish(self, learner: Learner) -> None:
        """Change weights of the learner once, behind the last step and before batch-norms are re-estimated."""

    def forward(self, sources: LossInputs) -> torch.Tensor:
        """Return the loss, a scalar: the mean over the examples of the batch."""
        raise NotImplementedError
