"""Pruning masks: boolean tensors that mark the remaining weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from attar._src.core.errors import SpecError
from attar._src.core.tensors import CompressedTensor, Dense, Sparse
from attar._src.methods.prune.units import PruningUnit, WeightRows, lowest
from attar._src.work.constraint import Constraint
from attar._src.work.parametrization import Parametrization
from attar._src.work.weight_view import WeightView


class Mask(Parametrization):
    """The mask of one weight. It masks the gradient too, so a pruned element stays pruned.

    Elements of the weight that are zero are pruned from the start, unless all are.

    Attributes:
        watched: whether it sums gradients of the loss by the masked weight, of pruned elements, too, their squares, and
            movement.
    """

    mask: torch.Tensor  # bool, the weight's shape; True for remaining elements
    #: Sums over the examples that each rank sees, which the ranks average when they are read.
    of_rank: ClassVar[tuple[str, ...]] = ("gradient", "gradient_squares", "movement", "steps")
    gradient: torch.Tensor  # the weight's shape: sum of the gradients since the last update of the masks
    gradient_squares: torch.Tensor  # the weight's shape: sum of their squares
    movement: torch.Tensor  # the weight's shape: sum of -w dL/dw over all steps
    steps: torch.Tensor  # 0-d int64: how many gradients were summed

    def __init__(self, weight: torch.Tensor, *, watched: bool = False) -> None:
        super().__init__()
        left = weight.detach() != 0
        self.watched = watched
        self.register_buffer("mask", left if left.any() else torch.ones_like(left))
        for name in ("gradient", "gradient_squares", "movement") if watched else ():
            self.register_buffer(name, torch.zeros_like(weight, dtype=torch.float32, requires_grad=False))
        if watched:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @classmethod
    def of(cls, pruned: torch.Tensor) -> Mask:
        """Return the mask of these pruned elements, a bool tensor."""
        mask = cls(torch.ones(pruned.shape))
        mask.mask.copy_(~pruned)
        return mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        masked = x.masked_fill(~self.mask, 0)
        if self.watched and self.training and masked.requires_grad:
            value = x.detach()
            masked.register_hook(lambda gradient: self._see(value, gradient))
        return masked

    def _see(self, value: torch.Tensor, gradient: torch.Tensor) -> None:
        seen = gradient.detach().float()
        self.gradient += seen
        self.gradient_squares += seen.square()
        self.movement -= value.float() * seen
        self.steps += 1

    @property
    def seen(self) -> bool:
        """Whether there is a gradient since the last update of the masks."""
        return self.watched and bool(self.steps > 0)

    def watched_means(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the mean gradient, its mean square and movement, the same on all ranks."""
        count = self.steps.clamp(min=1)
        means = (self.gradient / count, self.gradient_squares / count, self.movement)
        gradient, squares, movement = map(_over_ranks, means)
        return gradient, squares, movement

    def forget_gradient(self) -> None:
        """Begin new means of gradients."""
        if self.watched:
            self.gradient.zero_()
            self.gradient_squares.zero_()
            self.steps.zero_()

    def average(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Make ranks agree on what was summed."""
        for name in ("gradient", "gradient_squares", "movement") if self.watched else ():
            getattr(self, name).copy_(mean(getattr(self, name)))

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return the masked value as Sparse, or as Dense if the mask (1 bit per element) costs more than it saves."""
        array, mask = np.ascontiguousarray(self(value).cpu().numpy()), self.mask.cpu().numpy()
        saved = (mask.size - int(mask.sum())) * array.itemsize
        return Sparse(mask, Dense(array[mask])) if saved > mask.size / 8 else Dense(array)

    @property
    def pruned(self) -> int:
        """Number of pruned elements."""
        return int(self.mask.numel() - self.mask.sum())


def _over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over the ranks of a distributed training; of one rank the tensor."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value


def sparsity(masks: Mapping[str, Mask]) -> float:
    """Return the pruned share of all elements of these weights."""
    return sum(mask.pruned for mask in masks.values()) / max(sum(mask.mask.numel() for mask in masks.values()), 1)


def prune_to_count(masks: Mapping[str, Mask], scores: Mapping[str, torch.Tensor], count: int) -> None:
    """Prune exactly ``count`` elements over all weights: those pruned before, then those with the lowest scores.

    Ties are broken by the order of weights and elements.
    """
    ranked = [scores[name].float().masked_fill(~mask.mask, -torch.inf).reshape(-1) for name, mask in masks.items()]
    chosen = lowest(torch.cat(ranked), count)
    for mask, part in zip(masks.values(), chosen.split([len(each) for each in ranked]), strict=True):
        mask.mask.copy_(~part.reshape(mask.mask.shape))


def prune_below(masks: Mapping[str, Mask], scores: Mapping[str, torch.Tensor], threshold: float) -> None:
    """Prune every remaining element with a score below ``threshold``."""
    for name, mask in masks.items():
        mask.mask &= scores[name] >= threshold


def sparse_tensors(state: Mapping[str, torch.Tensor]) -> dict[str, CompressedTensor]:
    """Return the tensors with so many zeros that a mask and the others are smaller, as such."""
    stored = {name: Mask(value).to_compressed(value) for name, value in state.items() if value.numel()}
    return {name: each for name, each in stored.items() if isinstance(each, Sparse)}


def demand_some_left(
    name: str, unit: PruningUnit, rows: WeightRows, count: int, said: str, *, each_row: bool = False
) -> None:
    """Refuse to prune all units of a weight, or of its rows if each loses the same number.

    Raises:
        SpecError: ``count`` of units are all.
    """
    size, wide = unit.count(rows), unit.wide(rows)
    if each_row and size and round(count / (size // wide)) >= wide:
        raise emptied(name, wide, f"{said} of each row", what=unit.text)
    if count >= size > 0:
        raise emptied(name, size, said, what=unit.text)


def emptied(name: str, size: int, said: str, *, what: str = "weight") -> SpecError:
    """Return the error that a weight of ``size`` units loses them all."""
    # Rounded down, so that the proposed sparsity leaves at least one element.
    most = math.floor((size - 1) / size * 1000) / 1000
    units = "weights" if what == "weight" else f"units {what}"
    return SpecError(
        f"prune at {name!r}: {said} leaves 0 of its {size} {units}; give it sparsity <= {most:g} of its own in "
        "overrides, or take scope lamp, which leaves every layer some"
    )


class MaskConstraint(Constraint):
    """Masks on weights; those of a later constraint replace them."""

    order: ClassVar[int] = 0
    family: ClassVar[str] = "mask"

    def finalize(self, weights: WeightView) -> None:
        for name, mask in self.masks().items():
            weights.value(name).masked_fill_(~mask.mask, 0)

    def report(self) -> dict[str, Any]:
        return {"sparsity": sparsity(self.masks())}

    def masks(self) -> dict[str, Mask]:
        """Return the masks that still act, by weight."""
        return {name: mask for name, mask in self.weights.items() if isinstance(mask, Mask)}
