"""The rule that normalizes weights before rounding."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.core.tensors import CompressedTensor, Dense
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.prune.masks import Mask
from attar._src.methods.quantize.qat.freeze import FrozenWeight
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.parametrization import Parametrization
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView


class Normalize(Rule):
    """Normalize weights to zero mean and constant standard deviation (Li et al. 2020, "Additive powers-of-two
    quantization", its section on weight normalization).

        w~ = g (w - mean w) / sd w

    over the nonzero elements of a tensor, with gradients through mean and standard deviation, so that a learned step
    and its weights do not drift together. Zeros stay zero, so pruned weights stay pruned. In the paper w~ has unit
    variance. Here g is the weight's initial standard deviation, fixed, so that the module keeps its scale and other
    rules their settings; a ``normalize`` in a later stage keeps g.

    List it after ``prune`` and before ``lsq``, so that steps start from normalized weights.

    Attributes:
        keep: globs of layers or weights that are not normalized.
    """

    name: Literal["normalize"] = "normalize"
    keep: tuple[str, ...] = ()

    def attach(self, learner: Learner) -> Constraint:
        weights = {}
        for name in select_weights(learner, True, {}, keep=self.keep):
            existing = learner.parametrizations(name)
            if any(isinstance(each, FrozenWeight) for each in existing):
                raise SpecError(f"normalize at {name!r}: freeze already acts on it; list normalize before freeze")
            earlier = [each.gain for each in existing if isinstance(each, NormalizedWeight)]
            weights[name] = NormalizedWeight(learner.tensor(name), name, *earlier)
        return NormalizeConstraint(weights)


class NormalizedWeight(Parametrization):
    """A weight normalized to zero mean and the standard deviation ``gain`` (g), initially its own."""

    def __init__(self, weight: torch.Tensor, name: str, gain: torch.Tensor | None = None) -> None:
        super().__init__()
        _, deviation, _ = _moments(weight.detach())
        if not deviation > 0:
            raise SpecError(f"normalize at {name!r}: all its values are equal; name it in keep")
        self.gain = nn.Buffer((deviation if gain is None else gain).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, deviation, there = _moments(x)
        return (x - mean * there) * (self.gain / deviation)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        return Dense(self(value).detach().cpu().numpy().copy())


class NormalizeConstraint(Constraint):
    """The normalized weights of a :class:`Normalize`."""

    def check(self, weights: WeightView) -> None:
        """Refuse masks after the normalization, whose statistics would include the masked values."""
        for name, normalized in self.weights.items():
            every = weights.parametrizations(name)
            if any(isinstance(each, Mask) for each in every[every.index(normalized) :]):
                raise SpecError(f"normalize at {name!r}: prune acts after it; list prune before normalize")


def _moments(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the nonzero elements, 0-d, and their mask in floating point."""
    there = (w != 0).to(w)
    count = there.sum().clamp(min=1)
    mean = w.sum() / count
    return mean, (((w - mean) * there).square().sum() / count).sqrt(), there
