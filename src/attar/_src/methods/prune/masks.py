"""Pruning masks: boolean tensors that mark the remaining weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from attar._src.core.tensors import CompressedTensor, Dense, Sparse
from attar._src.work.parametrization import Parametrization


class Mask(Parametrization):
    """The mask of one weight. It masks the gradient too, so a pruned element stays pruned.

    Elements of the weight that are zero are pruned from the start, unless all are.
    """

    mask: torch.Tensor  # bool, the weight's shape; True for remaining elements

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        left = weight.detach() != 0
        self.register_buffer("mask", left if left.any() else torch.ones_like(left))

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
    lowest = _lowest(torch.cat(ranked), count)
    for mask, part in zip(masks.values(), lowest.split([len(each) for each in ranked]), strict=True):
        mask.mask.copy_(~part.reshape(mask.mask.shape))


def prune_below(masks: Mapping[str, Mask], scores: Mapping[str, torch.Tensor], threshold: float) -> None:
    """Prune every remaining element with a score below ``threshold``."""
    for name, mask in masks.items():
        mask.mask &= scores[name] >= threshold


def _lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a mask of the ``count`` lowest scores; the first of equal ones."""
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    last = scores.kthvalue(count).values
    below, level = scores < last, scores == last
    return below | (level & (level.cumsum(0) <= count - below.sum()))
