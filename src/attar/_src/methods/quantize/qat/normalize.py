"""Weight normalization before rounding."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

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
    """Weights are read with their mean taken out and a spread that stays as it was (Li et al. 2020, "Additive
    powers-of-two quantization", its section on weight normalization).

        w~ = g (w - mean w) / sd w

    over a whole tensor, with the gradient through mean and standard deviation, which is what keeps a learned step and
    the weights it rounds from running after each other. There w~ has unit variance; here g, fixed, is the standard
    deviation the weight comes with, so that the function keeps its scale and other rules their settings. At the start
    it changes one thing: the mean is removed. Zeros stay zeros and do not count, so that a pruned weight stays pruned.

    List it before ``lsq``, so that steps begin from what they round, and after ``prune``. What is stored is what is
    read. Listed again in a later stage it goes on with the same g.

    Attributes:
        keep: globs of layers or weights read as they are.
    """

    name: Literal["normalize"] = "normalize"
    keep: tuple[str, ...] = ()

    def attach(self, learner: Learner) -> Constraint:
        """Return the normalization of the selected weights.

        Raises:
            UnknownName: a glob matches no layer.
            SpecError: all values of a weight are equal, or the weight is frozen already.
        """
        weights = {}
        for name in select_weights(learner, True, {}, keep=self.keep):
            existing = learner.parametrizations(name)
            if any(isinstance(each, FrozenWeight) for each in existing):
                raise SpecError(f"normalize at {name!r}: freeze holds its codes already; list normalize before it")
            earlier = [each.gain for each in existing if isinstance(each, NormalizedWeight)]
            weights[name] = NormalizedWeight(learner.tensor(name), name, *earlier)
        return NormalizeConstraint(weights)


class NormalizedWeight(Parametrization):
    """One weight, read with zero mean and its first spread.

    Args:
        weight: whose spread is kept.
        name: of the weight, for the message.
        gain: the spread instead, where the weight was normalized before.

    Attributes:
        gain: 0-d float32.

    Raises:
        SpecError: all values of the weight are equal.
    """

    gain: torch.Tensor

    def __init__(self, weight: torch.Tensor, name: str, gain: torch.Tensor | None = None) -> None:
        super().__init__()
        _, deviation, _ = _moments(weight.detach())
        if not deviation > 0:
            raise SpecError(f"normalize at {name!r}: its values do not differ; name it in keep")
        self.register_buffer("gain", (deviation if gain is None else gain).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` normalized."""
        mean, deviation, there = _moments(x)
        return (x - mean * there) * (self.gain / deviation)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return what ``forward`` returns."""
        return Dense(self(value).detach().cpu().numpy().copy())


class NormalizeConstraint(Constraint):
    """The weights of a :class:`Normalize`."""

    order: ClassVar[int] = 0

    def check(self, weights: WeightView) -> None:
        """Refuse a mask after the normalization.

        Raises:
            SpecError: a mask acts after the normalization; masked in the end, the weight would be normalized otherwise.
        """
        for name, normalized in self.weights.items():
            every = weights.parametrizations(name)
            if any(isinstance(each, Mask) for each in every[every.index(normalized) :]):
                raise SpecError(f"normalize at {name!r}: prune follows it; list prune before normalize")


def _moments(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of what is not zero, 0-d, and a mask of it in floating point."""
    there = (w != 0).to(w)
    count = there.sum().clamp(min=1)
    mean = w.sum() / count
    return mean, (((w - mean) * there).square().sum() / count).sqrt(), there
