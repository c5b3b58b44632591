"""Constraint: masks, grids and codebooks that act on the weights and activations of a module in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from attar._src.work.compressed_model import CompressedModel
from attar._src.work.parametrization import Parametrization
from attar._src.work.weight_view import WeightView


@dataclass(frozen=True)
class Progress:
    """Position in a training stage: before step ``step`` of ``steps``."""

    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """Share of the steps done, 0 to 1."""
        return self.step / max(self.steps, 1)


class Constraint(nn.Module):
    """A :class:`~attar.extend.Rule` attached to a module; it must not hold the learner.

    Attributes:
        order: on one weight, lower orders act first: masks and normalizations (0), grids (1), thresholds (2).
        family: a constraint replaces earlier ones of its family (``grid``) on a weight or value.
        merges: whether batch-norms that stay in the deployed graph are merged into two vectors.
        weights: name of a weight -> its parametrization.
        values: value of the captured program -> its parametrization; the sources of one site share one.
        floating: values of the captured program that stay in floating point by request.
    """

    order: ClassVar[int] = 0
    family: ClassVar[str] = ""
    merges: bool = False

    def __init__(
        self,
        weights: Mapping[str, Parametrization],
        values: Mapping[str, Parametrization] | None = None,
        floating: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.weights, self.values, self.floating = dict(weights), dict(values or {}), floating
        # Numbered, as names of submodules must not have dots.
        unique = {id(each): each for each in [*self.weights.values(), *self.values.values()]}
        self.parametrizations = nn.ModuleList(unique.values())

    def rebind(self, weights: WeightView) -> None:
        """Update references to other parametrizations; called after every attachment of a constraint."""

    def check(self, weights: WeightView) -> None:
        """Check this constraint with others on the same weights; called when all of a stage are attached.

        Raises:
            SpecError: they cannot work in this order.
        """

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Advance schedules and masks before a step."""

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Make ranks agree before evaluation and checkpoints; ``mean`` averages a tensor over the ranks."""

    def finalize(self, weights: WeightView) -> None:
        """Change the weights themselves at the end of the stage, as pruning sets them to zero."""

    def finish(self, piece: CompressedModel) -> CompressedModel:
        """Return the deployed model with last changes, such as biases on the integer grid."""
        return piece

    def report(self) -> dict[str, Any]:
        """Return numbers for the log after an epoch, such as the sparsity."""
        return {}
