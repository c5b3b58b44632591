"""The lasso term: a penalty that moves weights, or whole groups of them, towards zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import field_validator

from attar._src.methods.prune.rows import rows_of
from attar._src.methods.prune.units import PruningUnit, UnitText, WeightRows
from attar._src.train.schedule import Scheduled
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term
from attar._src.work.weight_view import GRID_ORDER, WeightView


class Lasso(Term):
    """Sum of the lengths of groups of weights, ``L = sum_g sqrt(n_g) ||w_g||_2`` with n_g the elements of group g.

    Of single weights it is the L1 norm (Han et al. 2015, section 3.1, compare L1 with L2); of groups the group lasso
    (Yuan and Lin 2006, "Model selection and estimation in regression with grouped variables"; for channels of networks
    Wen et al. 2016, "Learning structured sparsity in deep neural networks", section 3.1). Every group is pulled by the
    same force whatever its length, so that small ones reach zero; prune them afterwards or in the same stage.

    Groups (3, 4) and (0, 0.5) add sqrt(2) (5 + 0.5) = 7.78.

    Attributes:
        weight: factor; 1e-4 per weight is usual for L1.
        unit: ``weight``; ``row``: all weights of an output channel; or a block such as ``4x1``.
        layers: globs of weights.
    """

    name: Literal["lasso"] = "lasso"
    weight: Scheduled = 1e-4
    unit: Literal["row"] | UnitText = "weight"
    layers: tuple[str, ...] = ("*",)

    @field_validator("unit")
    @classmethod
    def _no_pattern(cls, unit: str) -> str:
        if ":" in unit:
            raise ValueError(
                f"unit {unit}: weights of an N:M pattern are no group of one length; write weight, row or 4x1"
            )
        return unit

    def build(self, learner: Learner) -> Objective:
        names = learner.select(self.layers)
        return _Lasso(self.unit, rows_of(learner, names) if self.unit != "weight" else {}, names)


class _Lasso(Objective):
    def __init__(self, unit: str, rows: Mapping[str, WeightRows], names: list[str]) -> None:
        super().__init__()
        self.rows, self.names = rows, names
        self.row, self.unit = unit == "row", PruningUnit.parse("weight" if unit == "row" else unit)

    def forward(self, sources: LossInputs) -> torch.Tensor:
        total = torch.zeros((), device=sources.outputs.device)
        for name in self.names:
            value = _masked(sources.weights, name)
            if not self.rows:
                total = total + value.abs().sum()
                continue
            rows = self.rows[name].rows(value)
            if self.row:
                squares, size = rows.square().sum(-1), torch.tensor(float(rows.shape[-1]))
            else:
                squares = self.unit.scores(rows.square(), self.rows[name], lambda sums: sums)
                size = self.unit.sizes(self.rows[name]).to(squares.device).to(squares.dtype)
                squares = squares * size
            # A square root of zero has no gradient.
            total = total + (size.to(squares.device) * squares.clamp(min=1e-20)).sqrt().sum()
        return total


def _masked(weights: WeightView, name: str) -> torch.Tensor:
    """Return a weight as its masks leave it, with gradient."""
    value = weights.tensors[name]
    for order, each in weights.acting.get(name, ()):
        if order >= GRID_ORDER:
            break
        value = each(value)
    return value
