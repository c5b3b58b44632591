"""Objective: a loss from named sources. A recipe's objective is a weighted sum of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from attar._src.core.describe import to_record
from attar._src.core.spec import Spec
from attar._src.train.batch import Batch
from attar._src.train.schedule import Scheduled

if TYPE_CHECKING:
    from attar._src.work.learner import Learner


@dataclass(frozen=True)
class LossInputs:
    """What an objective may look at.

    Attributes:
        outputs: the student's main output (``model.outputs.main_output``), ``(n, ..., classes)`` where it scores
            classes.
        every: all of the student's outputs.
        batch: the inputs and targets.
        teachers: name of a model -> its main output on the same inputs, without gradient.
        progress: share of the stage that is done, 0 to 1.
        features: path of a module -> its value in the student, for those the objectives ask for.
        teacher_features: name of a model -> path of a module -> its value there, without gradient.
    """

    outputs: torch.Tensor
    every: tuple[torch.Tensor, ...]
    batch: Batch
    teachers: Mapping[str, torch.Tensor]
    progress: float
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)


class Objective(nn.Module):
    """A loss. It may own parameters (projectors), which are trained with the student's and kept in checkpoints."""

    def prepare(self, sources: LossInputs) -> None:
        """Make the parameters whose sizes follow from features; called once before training, where there are such.

        Args:
            sources: of a few examples without targets. Random numbers drawn here follow from the stage's seed.
        """

    def forward(self, sources: LossInputs) -> torch.Tensor:
        """Return the loss, a scalar: the mean over the examples of the batch."""
        raise NotImplementedError


class Term(Spec):
    """An objective in a recipe: one of the sum.

    Attributes:
        name: which objective.
        weight: its factor, a number or a schedule.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    name: str
    weight: Scheduled = 1.0

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models whose outputs it needs."""
        return ()

    def features(self) -> tuple[str, ...]:
        """Return the paths of the student's modules whose values it needs."""
        return ()

    def teacher_features(self) -> Mapping[str, tuple[str, ...]]:
        """Return, for names of models, the paths of their modules whose values it needs."""
        return {}

    def budget(self) -> float | None:
        """Return the bits per weight it keeps the whole file at or below, None where it looks at none."""
        return None

    def build(self, learner: Learner) -> Objective:
        """Return the objective for a module in training."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return what the record in the file says of it."""
        return to_record(self)
