"""The rule ``prune``: weights become zero while the others are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from attar._src.core.errors import SpecError
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.prune.masks import Mask, MaskConstraint, demand_some_left, emptied, prune_below, sparsity
from attar._src.methods.prune.rewinding import Rewinding
from attar._src.methods.prune.rows import rows_of
from attar._src.methods.prune.schedule import Pruning
from attar._src.methods.prune.scopes import SCOPES, WeightUnits
from attar._src.methods.prune.scores import SCORES, ScoredWeight, misplaced
from attar._src.methods.prune.shapes import SHAPES
from attar._src.methods.prune.units import PruningUnit, WeightRows
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView


class Prune(Pruning, Rule):
    """Set the least important units of weights to zero while the others are trained: single weights, N:M, blocks.

    Sparsity never decreases, but at the end of ``dense_sparse_dense``; pruned elements get no gradient and are set to
    zero at the end of the stage.
    """

    name: Literal["prune"] = "prune"

    def attach(self, learner: Learner) -> Constraint:
        unit, scope, score = PruningUnit.parse(self.unit), SCOPES[self.scope], SCORES[self.score]
        if why := misplaced(score, self.score, training=True):
            raise SpecError(why)
        goal = self.sparsity if unit.share is None else unit.share
        shares = select_weights(learner, goal, self.overrides, keep=self.keep, layers=self.layers)
        rows = rows_of(learner, shares)
        for name, why in {name: why for name in shares if (why := unit.misfit(rows[name]))}.items():
            learner.warn(f"prune: {name!r} is not pruned: {why}")
            del shares[name]
        own = set(learner.select(tuple(self.overrides)))
        view = learner.weight_view()
        # What an earlier rule has set to zero stays so.
        watched = bool(score.needs or self.regrow)
        masks = {name: Mask(view.effective(name), watched=watched) for name in shares}
        together = scope.ranks or scope.name == "erdos_renyi" or self.threshold is not None
        alone = {name for name in masks if name in own or not together}
        groups = [_Group({name: masks[name]}, sparsity({name: masks[name]}), shares[name]) for name in sorted(alone)]
        rest = {name: mask for name, mask in masks.items() if name not in alone}
        groups += [_Group(rest, sparsity(rest), self.sparsity)] if rest else []
        parameters = dict(learner.module.named_parameters()) if self.rewind is not None else {}
        return PruneConstraint(self, groups, rows, parameters)


@dataclass(frozen=True)
class _Group:
    """Weights that are ranked together."""

    masks: Mapping[str, Mask]
    start: float  # initial sparsity
    goal: float | None  # final sparsity; None for a threshold

    @property
    def left(self) -> float:
        """Of the elements that there are at first, the share that is left in the end."""
        return 1.0 if self.goal is None else (1 - self.goal) / max(1 - self.start, 1e-12)


class PruneConstraint(MaskConstraint):
    """The masks of a :class:`Prune`."""

    reached: torch.Tensor  # 0-d, the largest f(u) applied so far
    released: torch.Tensor  # 0-d bool, whether the masks are gone
    updates: torch.Tensor  # 0-d int64, how often scores were computed
    ended: torch.Tensor  # 0-d bool, whether the stage of the rule is over, behind which masks stay as they are

    def __init__(
        self,
        rule: Prune,
        groups: Sequence[_Group],
        rows: Mapping[str, WeightRows],
        parameters: Mapping[str, torch.Tensor],
    ) -> None:
        super().__init__({name: mask for group in groups for name, mask in group.masks.items()})
        self.rule, self.groups, self.rows = rule, groups, rows
        self.unit, self.score, self.scope = PruningUnit.parse(rule.unit), SCORES[rule.score], SCOPES[rule.scope]
        self.shape = SHAPES[rule.shape]
        self.register_buffer("reached", torch.zeros((), dtype=torch.float64))
        self.register_buffer("released", torch.tensor(False))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("ended", torch.tensor(False))
        self.rewinding = Rewinding(rule.rewind, parameters) if rule.rewind is not None else None
        for group in groups:
            for name in group.masks if len(group.masks) == 1 and group.goal is not None else ():
                count = round((group.goal or 0.0) * self.unit.count(rows[name]))
                said = f"sparsity={group.goal:g}"
                demand_some_left(name, self.unit, rows[name], count, said, each_row=self.scope.each_row)

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Prune to the schedule's current sparsity, and exchange units.

        Raises:
            SpecError: a threshold or a global ranking left a weight without elements.
        """
        rule, at = self.rule, progress.fraction
        if self.ended:
            return
        if self.rewinding is not None:
            self.rewinding.keep(at, weights)
        # Masks end with the last step at the latest, or the stage would end with them.
        if self.shape.releases and (at >= rule.end or progress.step >= progress.steps - 1 > 0):
            self._release(weights)
        due = progress.step % rule.every == 0 or at >= rule.end
        seen = any(mask.seen for mask in self.masks().values())
        # Of scores with gradients nothing is known before the first step.
        if self.released or (self.score.needs and not seen) or not (due or not self.shape.gradual):
            return
        grown = self._grow(at, weights)
        if rule.regrow and seen and due and rule.begin <= at < rule.end:
            u = (at - rule.begin) / (rule.end - rule.begin)
            self._exchange(rule.regrow * (1 + math.cos(math.pi * u)) / 2, weights)
        if grown and self.rewinding is not None:
            self.rewinding.go_back(weights)
        if due or grown:
            for mask in self.masks().values():
                mask.forget_gradient()

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for mask in self.masks().values():
            mask.average(mean)

    def finalize(self, weights: WeightView) -> None:
        if not self.released:
            self._grow(1.0, weights)
            super().finalize(weights)
        self.ended.fill_(True)
        for mask in self.masks().values():
            mask.watched = False

    def _release(self, weights: WeightView) -> None:
        if not self.released:
            self._grow(self.rule.begin, weights)
            self.released.fill_(True)
            for name, mask in self.masks().items():
                weights.value(name).masked_fill_(~mask.mask, 0)
                mask.mask.fill_(True)

    def _grow(self, progress: float, weights: WeightView) -> bool:
        """Prune up to the schedule's sparsity at a progress; return whether anything was."""
        rule = self.rule
        if rule.share(progress) <= self.reached:
            return False
        self.reached.fill_(rule.share(progress))
        grown = False
        for group in self.groups:
            # A rule attached later may have taken over weights.
            masks = {name: mask for name, mask in group.masks.items() if name in self.weights}
            share, before = rule.share(progress, group.left), sparsity(masks)
            if group.goal is None:
                assert rule.threshold is not None
                said = f"threshold={rule.threshold:g}"
                scores = {name: self._element_scores(name, mask, weights) for name, mask in masks.items()}
                prune_below(masks, scores, rule.threshold * share)
            else:
                said = f"sparsity={group.goal:g}"
                aim = group.goal if share == 1 else group.start + (group.goal - group.start) * share
                self._prune_to(masks, aim, weights)
            grown |= sparsity(masks) > before
            for name, mask in masks.items():
                if mask.pruned == mask.mask.numel() > 0:
                    raise emptied(name, mask.mask.numel(), said)
        return grown

    def _prune_to(self, masks: Mapping[str, Mask], aim: float, weights: WeightView) -> None:
        """Prune a share of the units of these weights: those pruned before, then those with the lowest scores."""
        self.updates += 1
        units: dict[str, WeightUnits] = {}
        for name, mask in masks.items():
            rows, value = self.rows[name], weights.value(name)
            squares = self.unit.scores(rows.rows(value).square(), rows, lambda sums: sums)
            units[name] = WeightUnits(self._unit_scores(name, mask, weights), squares, tuple(value.shape))
        for name, count in self.scope.counts(units, aim).items():
            chosen = self.unit.lowest(units[name].scores, count, each_row=self.scope.each_row)
            masks[name].mask &= ~self.rows[name].weight(self.unit.spread(chosen, self.rows[name]))

    def _exchange(self, share: float, weights: WeightView) -> None:
        """Prune a share of the units that remain, and let as many with the largest gradients start from zero."""
        self.updates += 1
        for name, mask in self.masks().items():
            rows = self.rows[name]
            scores = self._unit_scores(name, mask, weights)
            left = scores > -torch.inf
            count = min(round(share * int(left.sum())), int((~left).sum()))
            if not count:
                continue
            dropped = self.unit.lowest(scores, int((~left).sum()) + count) & left
            gradient = self.unit.scores(rows.rows(mask.watched_means()[0].abs()), rows, lambda sums: sums)
            grown = self.unit.lowest((-gradient).masked_fill(left & ~dropped, torch.inf), count)
            here = rows.weight(self.unit.spread(grown, rows))
            weights.value(name).masked_fill_(here & ~mask.mask, 0)
            mask.mask &= ~rows.weight(self.unit.spread(dropped, rows))
            mask.mask |= here

    def _unit_scores(self, name: str, mask: Mask, weights: WeightView) -> torch.Tensor:
        """Return the scores of the units of a weight; minus infinity of those that are pruned."""
        rows, zeros = self.rows[name], self.rows[name].rows(~mask.mask)
        elements = rows.rows(self._element_scores(name, mask, weights))
        found = self.unit.scores(elements, rows, self.score.of_units)
        whole = self.unit.scores(zeros.to(elements.dtype), rows, lambda sums: sums) == 1
        return found.masked_fill(whole, -torch.inf)

    def _element_scores(self, name: str, mask: Mask, weights: WeightView) -> torch.Tensor:
        """Return the scores of the elements of a weight; 0 of those that are pruned.

        Raises:
            SpecError: one is not finite, as of a weight that is NaN.
        """
        scores = self.score.score(self._scored(name, mask, weights)).masked_fill(~mask.mask, 0)
        if not torch.isfinite(scores).all():
            raise SpecError(
                f"prune at {name!r}: the score {self.score.name} is not finite; look at its weights, or lower the "
                "learning rate"
            )
        return scores

    def _scored(self, name: str, mask: Mask, weights: WeightView) -> ScoredWeight:
        random = torch.Generator().manual_seed(int(self.updates))
        if not mask.watched:
            return ScoredWeight(weights.value(name), random=random)
        gradient, squares, movement = mask.watched_means()
        return ScoredWeight(weights.value(name), gradient, squares, movement=movement, random=random)
