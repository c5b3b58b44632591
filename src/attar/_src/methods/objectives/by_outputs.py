"""Losses of the presets, which follow from outputs and targets: those of classes, or those of yes and no."""

from __future__ import annotations

import torch

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.binary import BinaryCrossEntropy, BinaryKl
from attar._src.methods.objectives.cross_entropy import CrossEntropy
from attar._src.methods.objectives.kl import Kl
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective


class SoftLoss(Kl):
    """``kl`` of classes; ``binary_kl`` if there is one output, or a target for each output."""

    def loss(self, sources: LossInputs) -> torch.Tensor:
        if not _binary(sources):
            return super().loss(sources)
        return BinaryKl(teacher=self.teacher, temperature=self.temperature).loss(sources)

    def build(self, learner: Learner) -> Objective:
        return _ByOutputs(self)


class HardLoss(CrossEntropy):
    """``cross_entropy`` of classes; ``binary_cross_entropy`` if there is one output, or a target for each output."""

    def loss(self, sources: LossInputs) -> torch.Tensor:
        return BinaryCrossEntropy().loss(sources) if _binary(sources) else super().loss(sources)

    def build(self, learner: Learner) -> Objective:
        return _ByOutputs(self)


class _ByOutputs(Objective):
    def __init__(self, term: SoftLoss | HardLoss) -> None:
        super().__init__()
        self.term = term

    def prepare(self, sources: LossInputs) -> None:
        """Refuse labels that could be meant otherwise, as far as a few examples tell."""
        if sources.batch.targets is not None and _binary(sources):
            _refuse_other_labels(sources, sources.batch.targets)

    def forward(self, sources: LossInputs) -> torch.Tensor:
        return self.term.loss(sources)


def _binary(sources: LossInputs) -> bool:
    return sources.layout.is_binary(sources.outputs.shape, sources.target_shape)


def _refuse_other_labels(sources: LossInputs, targets: torch.Tensor) -> None:
    labels, shapes = targets.double(), f"outputs {tuple(sources.outputs.shape)} and targets {tuple(targets.shape)}"
    counted = labels[targets != sources.layout.ignore_index]
    if counted.numel() and not 0 <= float(counted.min()) <= float(counted.max()) <= 1:
        raise SpecError(
            f"{shapes} from {float(counted.min()):g} to {float(counted.max()):g} are neither classes nor yes and no; "
            "learn numbers from a teacher by a finetune with objective: {name: mse_logits, teacher: NAME}"
        )
    if labels.dim() > 1 and labels.shape[-1] > 1 and bool((labels.sum(-1) - 1).abs().max() < 1e-6):
        raise SpecError(
            f"{shapes} that sum to 1 may be one class each, or labels that do not exclude each other; give classes as "
            "integers of one axis less, or write loss: binary_kl for such labels"
        )
