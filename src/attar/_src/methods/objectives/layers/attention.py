"""Attention transfer: match the spatial attention maps of student and teacher layers."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.layers.paired_layers import PairedLayersTerm
from attar._src.methods.objectives.soft_targets import valid_positions
from attar._src.methods.objectives.stateless import StatelessTerm
from attar._src.work.objective import LossInputs


class Attention(PairedLayersTerm, StatelessTerm):
    """``| Q_s / |Q_s| - Q_t / |Q_t| |``, summed over the pairs of layers, averaged over examples.

    Q is an example's attention map ``sum_c A_c^2``, flattened over positions; norms are Euclidean. Student and teacher
    may differ in channels. Zagoruyko and Komodakis 2017, "Paying more attention to attention", section 3.1, equation 2
    with p = 2; its factor ``beta / 2`` is the term's ``weight``, 500 in the paper. The gradient is 0 if both agree.
    Padded positions are 0 in the map; examples of padding alone do not count.
    """

    name: Literal["attention"] = "attention"

    def loss(self, sources: LossInputs) -> torch.Tensor:
        losses = []
        for student, teacher in self.pairs(sources):
            if student.dim() == 2:
                raise SpecError(
                    f"attention is over positions, and a layer of {list(self.layers.items())} has none; name "
                    "layers that output maps, or use hint"
                )
            real = valid_positions(sources, tuple(student.shape[:-1]), self.ignore_index)
            norms = torch.linalg.vector_norm(_attention(student, real) - _attention(teacher, real), dim=-1)
            losses.append(norms.mean() if real is None else norms.sum() / real.flatten(1).any(1).sum().clamp(min=1))
        return torch.stack(losses).sum()


def _attention(values: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """Return the unit-norm attention ``(N, positions)`` of values ``(N, ..., C)`` over unpadded positions."""
    maps = values.square().sum(-1)
    if real is not None:
        maps = maps.masked_fill(~real, 0)
    return torch.nn.functional.normalize(maps.flatten(1), dim=-1)
