"""Masks: which elements of weights are left, as they grow sparser; below the rule that says how far."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from attar._src.core.tensors import CompressedTensor, Dense, Sparse
from attar._src.work.parametrization import Parametrization


class Mask(Parametrization):
    """One weight, zero where a mask is unset.

    The gradient is masked too: an element once pruned does not come back.

    Args:
        weight: its zeros are pruned from the start, unless there is nothing else.

    Attributes:
        mask: bool, the weight's shape: what is left.
    """

    mask: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        left = weight.detach() != 0
        self.register_buffer("mask", left if left.any() else torch.ones_like(left))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` with zeros where the mask is unset."""
        return x.masked_fill(~self.mask, 0)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return the masked value as mask and values, or dense where so few are zero that the mask is longer."""
        array, mask = np.ascontiguousarray(self(value).cpu().numpy()), self.mask.cpu().numpy()
        saved = (mask.size - int(mask.sum())) * array.itemsize
        return Sparse(mask, Dense(array[mask])) if saved > mask.size / 8 else Dense(array)

    @property
    def pruned(self) -> int:
        """How many elements are pruned."""
        return int(self.mask.numel() - self.mask.sum())


def sparsity(masks: Mapping[str, Mask]) -> float:
    """Return the share of all elements of these weights that is pruned."""
    return sum(mask.pruned for mask in masks.values()) / max(sum(mask.mask.numel() for mask in masks.values()), 1)


def prune_to_count(
    masks: Mapping[str, Mask],
    weights: Mapping[str, torch.Tensor],
    score: Callable[[torch.Tensor], torch.Tensor],
    count: int,
) -> None:
    """Prune exactly ``count`` elements of all these weights together: those pruned before, then the lowest scores.

    Of equal scores the first is pruned, in the order of the weights and of their elements.
    """
    scores = [_ranked(masks[name], score(weights[name])) for name in masks]
    together = torch.cat(scores)
    lowest = _lowest(together, count)
    for mask, part in zip(masks.values(), lowest.split([len(part) for part in scores]), strict=True):
        mask.mask.copy_(~part.reshape(mask.mask.shape))


def prune_below(
    masks: Mapping[str, Mask],
    weights: Mapping[str, torch.Tensor],
    score: Callable[[torch.Tensor], torch.Tensor],
    threshold: float,
) -> None:
    """Prune every element whose score is below ``threshold``, and none of those left before that is not."""
    for name, mask in masks.items():
        mask.mask &= score(weights[name]) >= threshold


def _ranked(mask: Mask, scores: torch.Tensor) -> torch.Tensor:
    """Return flat scores in which what is pruned already comes first."""
    return scores.float().masked_fill(~mask.mask, -torch.inf).reshape(-1)


def _lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a bool tensor that is True at the ``count`` lowest scores, the first of equal ones."""
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    last = scores.kthvalue(count).values
    below, level = scores < last, scores == last
    return below | (level & (level.cumsum(0) <= count - below.sum()))
