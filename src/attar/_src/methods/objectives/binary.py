"""Losses of outputs that mean yes or no each: one logit, or several labels that do not exclude each other."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from attar._src.core.errors import SpecError
from attar._src.measure.class_layout import same_but_ones
from attar._src.methods.objectives.soft_targets import (
    IgnoreIndex,
    SoftTerm,
    at_least_float32,
    ignored_target,
    kl_divergence,
    mean_over_valid,
)
from attar._src.methods.objectives.stateless import StatelessTerm
from attar._src.work.objective import LossInputs


class BinaryCrossEntropy(StatelessTerm):
    """``-y log s(z) - (1 - y) log(1 - s(z))`` with the sigmoid s, averaged over outputs.

    Outputs are logits. Targets y are 0 or 1, or probabilities, one for each output: ``(N,)`` or ``(N, 1)`` for
    ``(N, 1)``, ``(N, L)`` for L labels, ``(N, H, W)`` for ``(N, 1, H, W)``.

    Attributes:
        ignore_index: target of outputs to ignore; by default the recipe's.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    ignore_index: IgnoreIndex = None

    def loss(self, sources: LossInputs) -> torch.Tensor:
        logits, targets = at_least_float32(sources.outputs), sources.batch.targets
        if targets is None or not same_but_ones(logits.shape, targets.shape):
            got = "none" if targets is None else f"{targets.dtype} of {tuple(targets.shape)}"
            raise SpecError(
                f"binary_cross_entropy takes a target, 0 or 1, for each of the outputs {tuple(logits.shape)}; {got} "
                "arrived. For one label of several classes use cross_entropy"
            )
        labels, counted = targets.reshape(logits.shape).to(logits.dtype), counted_outputs(sources, self.ignore_index)
        labels = labels.where(counted, 0)
        if labels.numel() and not 0 <= float(labels.min()) <= float(labels.max()) <= 1:
            raise SpecError(
                f"binary_cross_entropy takes targets from 0 to 1; they lie between {float(labels.min()):g} and "
                f"{float(labels.max()):g}, and ignore_index is {ignored_target(sources, self.ignore_index)}. For other "
                "numbers use a loss of your own, or learn from a teacher by mse_logits"
            )
        losses = binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return losses.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


class BinaryKl(SoftTerm):
    """``T^2 KL(p || s(z / T))`` of yes and no with the sigmoid s, averaged over outputs.

    For a teacher's logit t, p is ``s(t / T)``; an ensemble averages probabilities. For outputs that do not exclude each
    other, where the softmax of ``kl`` would compare them. For large T the loss tends to ``|z - t|^2 / 8``; it is 0 if
    both agree. Yang et al. 2023, "Multi-label knowledge distillation", section 3.2, sum over labels and leave out
    ``T^2``; the mean keeps the loss in proportion to ``binary_cross_entropy``.
    """

    name: Literal["binary_kl"] = "binary_kl"

    def log_probabilities(self, logits: torch.Tensor, sources: LossInputs, temperature: float) -> torch.Tensor:
        return torch.stack([logsigmoid(logits / temperature), logsigmoid(-logits / temperature)], -1)

    def soft_loss(self, student: torch.Tensor, teacher: torch.Tensor, sources: LossInputs) -> torch.Tensor:
        losses, targets = kl_divergence(student, teacher), sources.batch.targets
        if targets is None or not same_but_ones(losses.shape, targets.shape):
            return mean_over_valid(losses, sources, self.ignore_index)
        counted = counted_outputs(sources, self.ignore_index)
        return losses.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


def counted_outputs(sources: LossInputs, ignore_index: IgnoreIndex) -> torch.Tensor:
    """Return which outputs count, bool of their shape, by targets that they have one each."""
    assert sources.batch.targets is not None
    return (sources.batch.targets != ignored_target(sources, ignore_index)).reshape(sources.outputs.shape)
