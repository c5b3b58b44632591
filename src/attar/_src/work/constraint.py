"""Constraint: what weights and values are held to while a module is trained: a mask, a grid, a set of points.

A recipe's entry is a :class:`Rule`; attached to a module it is a :class:`Constraint`, which holds one :class:`Held` for
each weight and each site it acts on. The training graph reads ``held(weight)`` where it read ``weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import fx, nn

from attar._src.artifact.manifest import Activation
from attar._src.core.describe import to_record
from attar._src.core.spec import Spec
from attar._src.core.tensors import CompressedTensor

if TYPE_CHECKING:
    from attar._src.work.compressed_model import CompressedModel
    from attar._src.work.learner import Learner


@dataclass(frozen=True)
class Progress:
    """Where a stage of training is: before step ``step`` of ``steps``."""

    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """The share of the steps that is done, 0 to 1."""
        return self.step / max(self.steps, 1)


@dataclass(frozen=True)
class GridPositions:
    """Where the values of a weight lie on its grid, before they are rounded, in codes.

    Attributes:
        at: ``(w - offset) / scale``, the shape of the weight, with gradient to the weight and to what the grid learns.
        scale: what one code is worth, without gradient, broadcastable to ``at``.
        low, high: the codes at the ends of the grid.
    """

    at: torch.Tensor
    scale: torch.Tensor
    low: int
    high: int

    def codes(self) -> torch.Tensor:
        """Return the codes, whole numbers in floating point, without gradient."""
        return self.at.detach().round().clamp_(self.low, self.high)


class Parametrization(nn.Module):
    """One weight or one site under one constraint. In training mode it may watch what passes; in evaluation it must not
    change. Its buffers and parameters are kept in checkpoints."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is read in place of ``x``, same shape."""
        raise NotImplementedError

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return ``value`` as it is stored; ``dense()`` of it equals ``forward(value)``. For weights."""
        raise NotImplementedError

    def grid_positions(self, value: torch.Tensor) -> GridPositions | None:
        """Return where ``value`` lies on an evenly spaced grid, None where there is none. For weights."""
        return None

    def grid(self, value: str) -> Activation | None:
        """Return the grid of the values called ``value`` in the deployed graph, None where they are on none."""
        return None

    def emit(self) -> Callable[[fx.Graph, fx.Node], fx.Node] | None:
        """Return what adds to the deployed graph what this does to a value, None where a grid says it all."""
        return None


class Constraint(nn.Module):
    """A rule attached to a module.

    Attributes:
        order: constraints on one weight act in this order: what changes it or masks it (0) before grids (1).
        family: constraints of one family exclude each other on a weight or value: the later one holds it (``grid``).
        merges: whether batch-norms that stay in the deployed graph shall be two vectors there, not four.
        weights: name of a weight -> what it is held to.
        values: value of the captured program -> what it is held to. Sources of one site share one ``Held``.
        left: weight or value this rule could not act on -> why; it ends up in the report.
    """

    order: ClassVar[int] = 0
    family: ClassVar[str] = ""
    merges: bool = False

    def __init__(
        self,
        weights: Mapping[str, Parametrization],
        values: Mapping[str, Parametrization] | None = None,
        left: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.weights, self.values, self.left = dict(weights), dict(values or {}), dict(left or {})
        # Registered under positions, not names: names have dots in them.
        unique = {id(held): held for held in [*self.weights.values(), *self.values.values()]}
        self.held = nn.ModuleList(unique.values())

    def update(self, progress: Progress, weights: Mapping[str, torch.Tensor]) -> None:
        """Move on before a step (schedules, masks); ``weights``: the current value of every weight held."""

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Make ranks agree before evaluation and checkpoints; ``mean`` averages a tensor over the ranks."""

    def finalize(self, weights: Mapping[str, torch.Tensor]) -> None:
        """At the end of the stage, change the weights themselves where the rule asks it (zeros stay zeros)."""

    def finish(self, piece: CompressedModel) -> CompressedModel:
        """Return the deployed workpiece with what the rule still asks (biases on the integer grid)."""
        return piece

    def report(self) -> dict[str, Any]:
        """Return figures for the log after an epoch, such as the sparsity reached."""
        return {}


class Rule(Spec):
    """A constraint in a recipe.

    Attributes:
        after_grid: whether it is to be attached after the grid it acts on.
    """

    after_grid: ClassVar[bool] = False

    name: str

    def attach(self, learner: Learner) -> Constraint:
        """Return the constraint on ``learner``'s weights and sites.

        Raises:
            UnknownName: a glob matches no layer.
            SpecError: the rule does not fit a weight.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return what the record in the file says of it."""
        return to_record(self)
