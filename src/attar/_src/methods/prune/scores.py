"""Pruning scores: the importance of each element of a weight; the lowest are pruned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from attar._src.core.registry import Registry


@dataclass(frozen=True)
class ScoredWeight:
    """A weight whose elements are scored, and what is known of it; all tensors have its shape.

    Attributes:
        value: the weight.
        gradient: of the loss, the mean over parts of the examples, or over steps; None unless the score needs it.
        gradient_squares: mean of its squares over these; None likewise.
        squares: mean square of what each element multiplies; ones where that is not seen, as of a table.
        curvature: ``1 / [H^-1]_jj`` of the elements that remain, H the Hessian of the inputs of a row; ones likewise.
        movement: ``-sum_t w dL/dw`` over the steps of a training; None unless the score needs it.
        random: for scores that draw.
    """

    value: torch.Tensor
    gradient: torch.Tensor | None = None
    gradient_squares: torch.Tensor | None = None
    squares: torch.Tensor | None = None
    curvature: torch.Tensor | None = None
    movement: torch.Tensor | None = None
    random: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def known(self, what: Literal["gradient", "gradient_squares", "squares", "curvature", "movement"]) -> torch.Tensor:
        """Return one of these, ones where it is not seen."""
        found: torch.Tensor | None = getattr(self, what)
        return torch.ones_like(self.value) if found is None else found


class WeightScore:
    """The importance of the elements of a weight.

    Attributes:
        name: in recipes.
        needs: beside the weight: ``gradient`` of a loss, ``inputs`` that the weight multiplies, or ``movement`` of a
            training; empty for nothing.
    """

    name: ClassVar[str]
    needs: ClassVar[Literal["", "gradient", "inputs", "movement"]] = ""

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        """Return a finite score per element, the weight's shape, comparable between weights; those of a unit add up."""
        raise NotImplementedError

    def of_units(self, sums: torch.Tensor) -> torch.Tensor:
        """Return the scores of units, of the sums over their elements."""
        return sums


def misplaced(score: WeightScore, name: str, *, training: bool) -> str:
    """Return why a score cannot be had in, or after, a training; empty if it can."""
    if training and score.needs == "inputs":
        return (
            f"score {name} sees what weights multiply, which a training does not collect; use l1, taylor or movement, "
            "or the stage prune_weights"
        )
    if not training and score.needs == "movement":
        return f"score {name} is that of a training; use the rule or stage prune for it"
    return ""


class L1(WeightScore):
    """``|w|``, the magnitude: small weights change the output least (Han et al. 2015, "Learning both weights and
    connections for efficient neural networks", section 3)."""

    name: ClassVar[str] = "l1"

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        return scored.value.abs()


class L2(WeightScore):
    """``w^2``: of single weights the order of ``l1``, of a block the square of its length."""

    name: ClassVar[str] = "l2"

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        return scored.value.square()


class Wanda(WeightScore):
    """``|w| sqrt(E[x^2])``: magnitude times the norm of the input that it multiplies (Sun, Liu, Bair, Kolter 2024, "A
    simple and effective pruning approach for large language models", section 3; there with the scope ``row``)."""

    name: ClassVar[str] = "wanda"
    needs: ClassVar[Literal["", "gradient", "inputs", "movement"]] = "inputs"

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        return scored.value.abs() * scored.known("squares").sqrt()


class Obs(WeightScore):
    """``w^2 / (2 [H^-1]_jj)``: the squared error of the layer's output that is left when the other weights of the row
    make up for the one that is removed (Hassibi and Stork 1993, "Second order derivatives for network pruning: optimal
    brain surgeon", equation 5, with the Hessian of the inputs as in Frantar and Alistarh 2022, "Optimal brain
    compression", section 3)."""

    name: ClassVar[str] = "obs"
    needs: ClassVar[Literal["", "gradient", "inputs", "movement"]] = "inputs"

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        return scored.value.square() * scored.known("curvature") / 2


class Taylor(WeightScore):
    """``sum w^2 E[(dL/dw)^2]`` over a unit: the mean square of what removing each of its elements changes the loss by,
    in first order (Molchanov et al. 2019, "Importance estimation for neural network pruning", section 3.1, summed over
    the elements). The expectation is over parts of the examples, or over the steps of a training: of a trained network
    the mean gradient is about zero, and says little."""

    name: ClassVar[str] = "taylor"
    needs: ClassVar[Literal["", "gradient", "inputs", "movement"]] = "gradient"

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        return scored.value.square() * scored.known("gradient_squares")


class GradientWeight(WeightScore):
    """``sum |w E[dL/dw]|`` over a unit: the change of the mean loss in first order, element by element (Lee, Ajanthan,
    Torr 2019, "SNIP: single-shot network pruning based on connection sensitivity", section 4.1)."""

    name: ClassVar[str] = "gradient_weight"
    needs: ClassVar[Literal["", "gradient", "inputs", "movement"]] = "gradient"

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        return (scored.value * scored.known("gradient")).abs()


class Movement(WeightScore):
    """``-sum_t w dL/dw`` over the steps of a training: weights that move away from zero stay (Sanh, Wolf, Rush 2020,
    "Movement pruning: adaptive sparsity by fine-tuning", section 3)."""

    name: ClassVar[str] = "movement"
    needs: ClassVar[Literal["", "gradient", "inputs", "movement"]] = "movement"

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        return scored.known("movement").clone()


class RandomWeights(WeightScore):
    """Uniform random numbers: the control that any other score should beat."""

    name: ClassVar[str] = "random"

    def score(self, scored: ScoredWeight) -> torch.Tensor:
        drawn = torch.rand(scored.value.shape, generator=scored.random)
        return drawn.to(scored.value.device, scored.value.dtype)


SCORES: Registry[WeightScore] = Registry(
    "pruning score",
    L1(),
    L2(),
    Wanda(),
    Obs(),
    Taylor(),
    GradientWeight(),
    Movement(),
    RandomWeights(),
    base=WeightScore,
)
