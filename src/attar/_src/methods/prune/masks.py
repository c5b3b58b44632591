"""Pruning masks: boolean tensors that mark the remaining weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from attar._src.core.errors import SpecError
from attar._src.core.tensors import CompressedTensor, Dense, Sparse
from attar._src.methods.prune.units import lowest
from attar._src.work.constraint import Constraint
from attar._src.work.parametrization import Parametrization
from attar._src.work.weight_view import WeightView


class Mask(Parametrization):
    """The mask of one weight. It masks the gradient too, so a pruned element stays pruned.

    Elements of the weight that are zero are pruned from the start, unless all are.
    """

    mask: torch.Tensor  # bool, the weight's shape; True for remaining elements

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        left = weight.detach() != 0
        self.register_buffer("mask", left if left.any() else torch.ones_like(left))

    @classmethod
    def of(cls, pruned: torch.Tensor) -> Mask:
        """Return the mask of these pruned elements, a bool tensor."""
        mask = cls(torch.ones(pruned.shape))
        mask.mask.copy_(~pruned)
        return mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(~self.mask, 0)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return the masked value as Sparse, or as Dense if the mask (1 bit per element) costs more than it saves."""
        array, mask = np.ascontiguousarray(self(value).cpu().numpy()), self.mask.cpu().numpy()
        saved = (mask.size - int(mask.sum())) * array.itemsize
        return Sparse(mask, Dense(array[mask])) if saved > mask.size / 8 else Dense(array)

    @property
    def pruned(self) -> int:
        """Number of pruned elements."""
        return int(self.mask.numel() - self.mask.sum())


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


def emptied(name: str, size: int, said: str, *, what: str = "weight") -> SpecError:
    """Return the error that a weight of ``size`` units loses them all."""
    # Rounded down, so that the proposed sparsity leaves at least one element.
    most = math.floor((size - 1) / size * 1000) / 1000
    units = "weights" if what == "weight" else f"units {what}"
    return SpecError(
        f"prune at {name!r}: {said} leaves 0 of {size} {units}; use sparsity <= {most:g}, in overrides for it alone"
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
