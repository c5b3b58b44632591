"""Decoupled knowledge distillation: separate weights for the labelled class and for the others."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.soft_targets import (
    IgnoreIndex,
    SoftTerm,
    ignored_target,
    kl_divergence,
    mean_over_valid,
    valid_positions,
)
from attar._src.work.objective import LossInputs


class Dkd(SoftTerm):
    """``T^2 (alpha KL(b || b_student) + beta KL(r || r_student))``, averaged over positions.

    At temperature T, b is the teacher's (probability of the labelled class, of all others) and r its distribution over
    the other classes, renormalised. ``kl`` equals ``alpha = 1`` and ``beta`` = the teacher's probability of the other
    classes, so that they hardly count if the teacher is confident. Zhao et al. 2022, "Decoupled knowledge
    distillation", equations 6 and 7; they use beta 2 to 8 on CIFAR-100, larger for more confident teachers.

    Attributes:
        alpha, beta: factors of the labelled class and of the others.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    name: Literal["dkd"] = "dkd"
    alpha: Annotated[float, Field(ge=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 8.0

    def soft_loss(self, student: torch.Tensor, teacher: torch.Tensor, sources: LossInputs) -> torch.Tensor:
        label = _labelled(sources, tuple(student.shape), self.ignore_index)
        labelled = kl_divergence(_binary(student, label), _binary(teacher, label))
        others = kl_divergence(_others(student, label), _others(teacher, label))
        return mean_over_valid(self.alpha * labelled + self.beta * others, sources, self.ignore_index)


def _labelled(sources: LossInputs, shape: tuple[int, ...], ignore_index: IgnoreIndex) -> torch.Tensor:
    """Return the one-hot labels, bool of shape ``(N, ..., classes)``; class 0 for padding."""
    targets = sources.batch.targets
    real = valid_positions(sources, shape[:-1], ignore_index)
    if targets is None or real is None:
        got = "none" if targets is None else f"{targets.dtype} of {tuple(targets.shape)}"
        raise SpecError(
            f"dkd takes integer labels of the shape of the outputs without the class axis, {shape[:-1]}; "
            f"{got} arrived; label the examples, or use kl"
        )
    labels = targets.where(real, 0)
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < shape[-1]:
        raise SpecError(
            f"labels lie between {int(labels.min())} and {int(labels.max())}, but the outputs have {shape[-1]} classes "
            f"and ignore_index is {ignored_target(sources, ignore_index)}"
        )
    return torch.nn.functional.one_hot(labels, shape[-1]).bool()


def _binary(log: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities ``(N, ..., 2)`` of the label and of all other classes together."""
    right = log.masked_fill(~label, 0).sum(-1)
    return torch.stack([right, log.masked_fill(label, -torch.inf).logsumexp(-1)], -1)


def _others(log: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities given that the label is excluded; 0 at the label, so that it cancels."""
    return torch.log_softmax(log.masked_fill(label, -torch.inf), -1).masked_fill(label, 0)
