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
        squares: mean square of what each element multiplies, the parameter's shape; ones unless the score asks for it.
    """

    value: torch.Tensor
    gradient: torch.Tensor
    axis: int
    random: torch.Generator
    squares: torch.Tensor | None = None

    @property
    def norms(self) -> torch.Tensor:
        """Root of the mean square of what each element multiplies."""
        return torch.ones_like(self.value) if self.squares is None else self.squares.sqrt()

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
        joint: whether it is a change of the loss, which adds up over the weights that read a unit; it is computed for
            the gradient of each part of the examples, and the root of the mean square counts, of which only ratios
            within a group do. Otherwise the gradient is the mean over all, and ratios within a weight count.
        inputs: whether it needs the squares of what weights multiply; others than these weights are not looked at.
        eliminates: whether units are eliminated one after the other from the weights that read them, with the others
            solved anew (:mod:`.elimination`); :meth:`score` then is what the first would cost if inputs were
            uncorrelated.
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["weights", "norms"]] = "weights"
    gradients: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    inputs: ClassVar[bool] = False
    eliminates: ClassVar[bool] = False

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        """Return a finite score for each index of the axis, ``(n,)``; those of one unit are summed.

        Unless it is joint, the scores of a parameter are divided by their mean before those of several are averaged.
        """
        raise NotImplementedError

    def of_units(self, sums: torch.Tensor) -> torch.Tensor:
        """Return the scores of units, not below 0, of the sums over their channels."""
        return sums


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


class WandaScore(ChannelScore):
    """``sum |w| sqrt(E[x^2])``: magnitudes times the norms of what they multiply, of the weights that read a channel
    and of those that make it (after Sun et al. 2024, "A simple and effective pruning approach for large language
    models", section 3, where single weights are judged). It needs no labels."""

    name: ClassVar[str] = "wanda"
    inputs: ClassVar[bool] = True

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return scored.sums(scored.value.abs() * scored.norms)


class ObsScore(ChannelScore):
    """What the layers that read a channel lose without it and all that cost less, where their other weights make up for
    it: structured optimal brain surgeon (Kurtic, Frantar and Alistarh 2023, "ZipLM" (arXiv 2302.04089), section 3.1).
    It needs no labels."""

    name: ClassVar[str] = "obs"
    inputs: ClassVar[bool] = True
    eliminates: ClassVar[bool] = True

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return scored.sums((scored.value * scored.norms).square())


class TaylorScore(ChannelScore):
    """``sqrt(E[(sum w dL/dw)^2])`` over all weights w that read a unit: the change of the loss in first order when it
    becomes zero, the root of the mean square over parts of the examples (Molchanov et al. 2019, "Importance estimation
    for neural network pruning", section 3.1). The mean itself says little of a trained network, whose gradient is about
    zero; what a unit is read by tells more than what makes it, whose norms and shifts count, too."""

    name: ClassVar[str] = "taylor"
    gradients: ClassVar[bool] = True
    joint: ClassVar[bool] = True

    def score(self, scored: ScoredAxis) -> torch.Tensor:
        return scored.sums(scored.value * scored.gradient)

    def of_units(self, sums: torch.Tensor) -> torch.Tensor:
        return sums.abs()


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
    WandaScore(),
    ObsScore(),
    TaylorScore(),
    GradientWeightScore(),
    RandomScore(),
    base=ChannelScore,
)
