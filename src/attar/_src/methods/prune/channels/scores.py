"""Scores of channels: the importance of the elements of a weight along one of its axes; the lowest are removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from attar._src.core.registry import Registry


@dataclass(frozen=True)
class ScoredAxis:
    """A parameter whose elements along an axis are scored.

    Attributes:
        value: the parameter.
        gradient: of the loss, the parameter's shape; zeros unless the score asks for it.
        axis: the axis.
        random: for scores that draw.
    """

    value: torch.Tensor
    gradient: torch.Tensor
    axis: int
    random: torch.Generator

    def sums(self, elements: torch.Tensor) -> torch.Tensor:
        """Return the sums of elements of the parameter's shape over all other axes: ``(n,)``."""
        return elements.movedim(self.axis, 0).reshape(elements.shape[self.axis], -1).sum(1)


class ChannelScore:
    """The importance of channels.

    Attributes:
        name: in recipes.
        reads: the parameters it looks at: ``weights`` of products along both their axes, or ``norms``: the factors of
            batch-norms and other norms with statistics of each channel.
        gradients: whether it needs the gradient of a loss.
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["weights", "norms"]] = "weights"
    gradients: ClassVar[bool] = False

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        """Return a finite score >= 0 for each index of the axis, ``(n,)``; those of one channel are summed.

        Only ratios count: the scores of a parameter are divided by their mean before those of several are averaged.
        """
        raise NotImplementedError


class L1Score(ChannelScore):
    """``sum |w|`` (Li et al. 2017, "Pruning filters for efficient convnets", section 3.1)."""

    name: ClassVar[str] = "l1"

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return scored.sums(scored.value.abs())


class L2Score(ChannelScore):
    """``sum w^2``: of the elements of one channel, the square of their length."""

    name: ClassVar[str] = "l2"

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return scored.sums(scored.value.square())


class BatchNormScore(ChannelScore):
    """``|gamma|`` of norms (Liu et al. 2017, "Learning efficient convolutional networks through network slimming",
    section 3). Groups without a norm are not pruned."""

    name: ClassVar[str] = "batch_norm"
    reads: ClassVar[Literal["weights", "norms"]] = "norms"

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return scored.sums(scored.value.abs())


class TaylorScore(ChannelScore):
    """``|sum w dL/dw|``: the change of the loss in first order when a channel becomes zero (Molchanov et al. 2019,
    "Importance estimation for neural network pruning", section 3.1, where it is squared)."""

    name: ClassVar[str] = "taylor"
    gradients: ClassVar[bool] = True

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return scored.sums(scored.value * scored.gradient).abs()


class GradientWeightScore(ChannelScore):
    """``sum |w dL/dw|``: as ``taylor``, without letting the changes of elements cancel."""

    name: ClassVar[str] = "gradient_weight"
    gradients: ClassVar[bool] = True

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return scored.sums((scored.value * scored.gradient).abs())


class RandomScore(ChannelScore):
    """Uniform random numbers: the control that any other score should beat."""

    name: ClassVar[str] = "random"

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return torch.rand(scored.value.shape[scored.axis], generator=scored.random)


CHANNEL_SCORES: Registry[ChannelScore] = Registry(
    "channel score",
    L1Score(),
    L2Score(),
    BatchNormScore(),
    TaylorScore(),
    GradientWeightScore(),
    RandomScore(),
    base=ChannelScore,
)
