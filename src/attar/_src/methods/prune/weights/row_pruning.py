"""Pruning of one weight: which units go, and what the others become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from attar._src.core.errors import ModelError
from attar._src.methods.prune.scores import ScoredWeight, WeightScore
from attar._src.methods.prune.units import PruningUnit, WeightRows
from attar._src.methods.prune.weights.obs import BLOCK, remaining_rows, row_curvature, sweep

Update = Literal["none", "obs", "sparsegpt"]

#: Steps in which units are removed, with scores and remaining weights computed anew after each.
REMOVAL_STEPS = 8
#: Multiplications of these steps for one weight, about: half a minute of one core.
ROUND_BUDGET = 5e11
#: Multiplications of one step from which on columns are swept once instead.
SWEEP_FROM = 2e12


@dataclass(frozen=True)
class SeenInputs:
    """What the rows of a weight multiply.

    Attributes:
        hessian: damped, float64 ``(groups, d, d)``.
        squares: mean square of each input, float64 ``(groups, d)``.
    """

    hessian: torch.Tensor
    squares: torch.Tensor


@dataclass(frozen=True)
class RowPruning:
    """How the units of one weight are pruned.

    Attributes:
        rows: how it is cut into rows.
        unit, score, update: of the pruning.
        each_row: whether each row loses the same number.
        scored: what scores read beside values and inputs, in the weight's shape.
        factor: of folded batch-norms, by which the module's own weight was multiplied; it broadcasts to the weight.
    """

    rows: WeightRows
    unit: PruningUnit
    score: WeightScore
    update: Update
    each_row: bool
    scored: ScoredWeight
    factor: torch.Tensor | None = None

    def own(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows as the module's own weight has them, in the weight's shape."""
        value = self.rows.weight(rows)
        return value if self.factor is None else torch.where(self.factor == 0, 0.0, value / self.factor)

    def unit_scores(
        self, rows: torch.Tensor, zeros: torch.Tensor, seen: SeenInputs | None, curvature: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the score of each unit; minus infinity of those whose elements are zeros already.

        Args:
            rows: float64, the present values.
            zeros: bool, elements that are pruned.
            seen: None if nothing is known of the inputs.
            curvature: ``1 / [H^-1]_jj`` of the elements that remain; that of all, if None.

        Raises:
            ModelError: a score is not finite.
        """
        # Sizes are those of training; what looks at inputs or gradients judges outputs, which the factor is part of.
        value = self.rows.weight(rows) if self.score.needs else self.own(rows)
        scored = replace(self.scored, value=value)
        if seen is not None and self.score.needs == "inputs":
            curvature = row_curvature(torch.zeros_like(zeros), seen.hessian) if curvature is None else curvature
            squares = seen.squares[:, None].expand_as(rows)
            scored = replace(scored, squares=self.rows.weight(squares), curvature=self.rows.weight(curvature))
        elements = self.rows.rows(self.score.score(scored).double())
        if not torch.isfinite(elements).all():
            raise ModelError(f"the score {self.score.name} is not finite; look at the weight, its inputs and the loss")
        found = self.unit.scores(elements.masked_fill(zeros, 0), self.rows, self.score.of_units)
        whole = self.unit.scores(zeros.double(), self.rows, lambda sums: sums) == 1
        return found.masked_fill(whole, -torch.inf)

    def prune(
        self, value: torch.Tensor, count: int, seen: SeenInputs | None, aims: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weight with ``count`` units pruned, and which of its elements are, both in its shape.

        Args:
            value: the weight.
            count: number of units, those that are zero already included.
            seen: None if nothing is known of the inputs; then the others stay as they are.
            aims: rows that make of these inputs what is wanted; by default those of ``value``.
        """
        rows = self.rows.rows(value).double()
        zeros = rows == 0
        aims = rows if aims is None else aims.masked_fill(zeros, 0)
        if seen is None or self.update == "none":
            pruned = zeros | self._chosen(self.unit_scores(rows, zeros, seen), count)
            made = rows.masked_fill(pruned, 0)
        elif self.update == "sparsegpt" or self._cost(rows) > SWEEP_FROM:
            made, pruned = self._swept(aims, zeros, count, seen)
        else:
            made, pruned = self._solved(aims, zeros, count, seen)
        return self.rows.weight(made).to(value.dtype), self.rows.weight(pruned)

    def swept(self, value: torch.Tensor) -> bool:
        """Whether ``obs`` takes so long that columns are swept once."""
        return self.update == "obs" and self._cost(self.rows.rows(value)) > SWEEP_FROM

    def _solved(
        self, aims: torch.Tensor, zeros: torch.Tensor, count: int, seen: SeenInputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Remove some units at a time, and solve for the others after each."""
        rounds = 1
        if self.score.name == "obs":
            most = self.unit.of - self.unit.keep if self.unit.of else REMOVAL_STEPS
            rounds = int(min(max(ROUND_BUDGET // max(self._cost(aims), 1), 1), most))
        made, pruned = aims, zeros
        for done in range(1, rounds + 1):
            curvature = row_curvature(pruned, seen.hessian) if self.score.name == "obs" else None
            scores = self.unit_scores(made, pruned, seen, curvature)
            pruned = pruned | self._chosen(scores, round(count * done / rounds))
            made = remaining_rows(aims, pruned, seen.hessian)
        return made, pruned

    def _swept(
        self, aims: torch.Tensor, zeros: torch.Tensor, count: int, seen: SeenInputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sweep the columns, position by position of a kernel, so that N:M patterns are neighbours."""
        positions, length = max(self.rows.positions, 1), aims.shape[2]
        order = torch.arange(length).reshape(-1, positions).T.reshape(-1)
        adaptive = self.score.name == "obs" and self.unit.rows == self.unit.columns == 1
        chosen = zeros if adaptive else zeros | self._chosen(self.unit_scores(aims, zeros, seen), count)
        found = torch.empty_like(zeros)
        of, apart = self.unit.of, aims.shape[0] * aims.shape[1] if self.each_row else 1
        block = max(BLOCK // of * of, of) if of else BLOCK

        def choose(rows: torch.Tensor, curvature: torch.Tensor, at: slice) -> torch.Tensor:
            here = order[at]
            if adaptive:
                before = zeros[..., here]
                scores = (rows.square() * curvature).masked_fill(before, -torch.inf)
                # Whole numbers for each row, so that what a block lacks comes with the next.
                per = round(count / apart)
                done, now = (apart * round(per * place / max(length, 1)) for place in (at.start, at.stop))
                found[..., here] = before | self._of_block(scores, now - done)
            else:
                found[..., here] = chosen[..., here]
            return found[..., here]

        ordered = seen.hessian[:, order][:, :, order]
        made = torch.empty_like(aims)
        made[..., order] = sweep(aims[..., order], ordered, choose, block)
        return made, found

    def _of_block(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        """Return the lowest of some columns, as single weights at one position."""
        grid = scores[..., None]
        return self.unit.lowest(grid, count, each_row=self.each_row)[..., 0]

    def _chosen(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        return self.unit.spread(self.unit.lowest(scores, count, each_row=self.each_row), self.rows)

    def _cost(self, rows: torch.Tensor) -> float:
        groups, count, columns = rows.shape
        return float(groups * count) * columns**3
