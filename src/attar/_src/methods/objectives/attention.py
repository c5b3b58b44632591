"""Attention transfer: a student learns where its teacher looks."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.paired_layers import PairedLayersTerm
from attar._src.methods.objectives.soft_targets import valid_positions
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective


class Attention(PairedLayersTerm):
    """``| Q_s / |Q_s| - Q_t / |Q_t| |``, summed over the pairs of layers, the mean over examples.

    Q is an example's map of a layer, ``sum_c A_c^2`` over its channels, as one vector of all positions; norms are
    Euclidean. Channels need not be as many in student and teacher. Zagoruyko and Komodakis 2017, "Paying more attention
    to attention", section 3.1, equation 2 with p = 2; its factor ``beta / 2`` is the ``weight``, there 500. Maps of
    different sizes are averaged down to the smaller, before channels are summed. Where both agree the gradient is 0.
    Where targets say what is padding, an example's map is 0 there, and one of nothing else does not count.

    Attributes:
        teacher: a model's name. It has to be a program: a file and a cache know outputs alone.
        layers: modules of the student by their paths, such as ``layer3.1`` -> modules of the teacher.
        ignore_index: the target of examples, or of positions as they are compared, that do not count.
    """

    name: Literal["attention"] = "attention"

    def build(self, learner: Learner) -> Objective:
        """Return the loss; it has no parameters."""
        return _Attention(self)


class _Attention(Objective):
    def __init__(self, term: Attention) -> None:
        super().__init__()
        self.term = term

    def forward(self, sources: LossInputs) -> torch.Tensor:
        losses = []
        for student, teacher in self.term.pairs(sources):
            if student.dim() == 2:
                raise SpecError(
                    f"attention is over positions, and a layer of {list(self.term.layers.items())} has none; name "
                    "layers that give maps, or use hint"
                )
            real = valid_positions(sources, tuple(student.shape[:-1]), self.term.ignore_index)
            apart = torch.linalg.vector_norm(_attention(student, real) - _attention(teacher, real), dim=-1)
            losses.append(apart.mean() if real is None else apart.sum() / real.flatten(1).any(1).sum().clamp(min=1))
        return torch.stack(losses).sum()


def _attention(values: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """Return the attention ``(n, positions)`` of values ``(n, ..., c)``, of norm 1, over the real positions."""
    maps = values.square().sum(-1)
    if real is not None:
        maps = maps.masked_fill(~real, 0)
    return torch.nn.functional.normalize(maps.flatten(1), dim=-1)
