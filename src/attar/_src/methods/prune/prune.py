"""The rule ``prune``: unstructured weight pruning, one-shot, in steps or gradual."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator

from attar._src.core.spec import Spec
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.prune.masks import Mask, MaskConstraint, emptied, prune_below, prune_to_count, sparsity
from attar._src.methods.prune.scores import SCORES, ScoredWeight
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView

_Sparsity = Annotated[float, Field(ge=0, lt=1)]
_Share = Annotated[float, Field(ge=0, le=1)]


class Pruning(Spec):
    """Target and schedule of weight pruning.

    With u the completed share of the way from ``begin`` to ``end``, the sparsity is ``s = s_0 + (s_f - s_0) f(u)``:

    | shape | f(u) | |
    |---|---|---|
    | once | 1 | one-shot |
    | steps | (floor(n u) + 1) / n | prune, train, prune again (Han et al. 2015, section 3) |
    | cubic | 1 - (1 - u)^3 | gradual (Zhu and Gupta 2017, "To prune, or not to prune", section 3) |

    ``s_0`` is the initial sparsity of a weight, so a later stage continues from it. A ``threshold`` grows from 0.

    Attributes:
        score: name of the pruning score.
        sparsity: share of elements to prune, exactly ``round(sparsity * n)`` of n.
        threshold: score below which elements are pruned, instead of ``sparsity``.
        scope: ``layer`` prunes every weight to the same sparsity, ``global`` the lowest scores of all weights together.
        shape: schedule of the sparsity.
        steps: number of steps of the shape ``steps``.
        begin, end: shares of the stage, 0 to 1.
        every: optimizer steps between two updates of the masks of shape ``cubic``.
        layers, keep: globs of weights to prune, and of exceptions.
        overrides: glob -> sparsity of each weight it matches.

    Example:
        >>> [Pruning(sparsity=0.8, shape="cubic", end=1.0).share(progress) for progress in (0.0, 0.5, 1.0)]
        [0.0, 0.875, 1.0]
    """

    score: str = "l1"
    sparsity: _Sparsity | None = None
    threshold: Annotated[float, Field(gt=0)] | None = None
    scope: Literal["layer", "global"] = "layer"
    shape: Literal["once", "steps", "cubic"] = "cubic"
    steps: Annotated[int, Field(ge=1)] = 4
    begin: _Share = 0.0
    end: _Share = 0.75
    every: Annotated[int, Field(ge=1)] = 10
    layers: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    overrides: dict[str, _Sparsity] = {}

    @model_validator(mode="after")
    def _one_criterion(self) -> Self:
        if (self.sparsity is None) == (self.threshold is None):
            raise ValueError("prune takes one of the two: sparsity or threshold")
        if self.end < self.begin:
            raise ValueError(f"prune ends at {self.end} of the stage, before it begins at {self.begin}; swap them")
        return self

    def share(self, progress: float) -> float:
        """Return f(u) at ``progress``, 0 to 1; 0 before ``begin``."""
        if progress < self.begin:
            return 0.0
        u = 1.0 if progress >= self.end else (progress - self.begin) / (self.end - self.begin)
        match self.shape:
            case "once":
                return 1.0
            case "steps":
                return min(1.0, (math.floor(u * self.steps) + 1) / self.steps)
            case _:
                return 1 - (1 - u) ** 3


class Prune(Pruning, Rule):
    """Set the least important elements of weights to zero while the others are trained (unstructured pruning).

    Sparsity never decreases; pruned elements get no gradient and are set to zero at the end of the stage.
    """

    name: Literal["prune"] = "prune"

    def attach(self, learner: Learner) -> Constraint:
        shares = select_weights(learner, self.sparsity, self.overrides, keep=self.keep, layers=self.layers)
        own = set(learner.select(tuple(self.overrides)))
        view = learner.weight_view()
        # What an earlier rule has set to zero stays so.
        masks = {name: Mask(view.effective(name)) for name in shares}
        alone = {name for name in masks if name in own or (self.scope == "layer" and self.threshold is None)}
        groups = [_Group({name: masks[name]}, sparsity({name: masks[name]}), shares[name]) for name in sorted(alone)]
        rest = {name: mask for name, mask in masks.items() if name not in alone}
        groups += [_Group(rest, sparsity(rest), self.sparsity)] if rest else []
        return PruneConstraint(self, groups)


@dataclass(frozen=True)
class _Group:
    """Weights that are ranked together."""

    masks: Mapping[str, Mask]
    start: float  # initial sparsity
    goal: float | None  # final sparsity; None for a threshold


class PruneConstraint(MaskConstraint):
    """The masks of a :class:`Prune`."""

    reached: torch.Tensor  # 0-d, the largest f(u) applied so far

    def __init__(self, rule: Prune, groups: Sequence[_Group]) -> None:
        super().__init__({name: mask for group in groups for name, mask in group.masks.items()})
        self.rule, self.groups = rule, groups
        self.score = SCORES[rule.score]
        self.register_buffer("reached", torch.zeros((), dtype=torch.float64))
        for group in groups:
            for name, mask in group.masks.items():
                size = mask.mask.numel()
                if group.goal is not None and len(group.masks) == 1 and round(group.goal * size) >= size > 0:
                    raise emptied(name, size, f"sparsity={group.goal:g}")

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Prune to the schedule's current sparsity.

        Raises:
            SpecError: a threshold or a global ranking left a weight without elements.
        """
        rule = self.rule
        if rule.shape != "cubic" or progress.step % rule.every == 0 or progress.fraction >= rule.end:
            self._grow(rule.share(progress.fraction), weights)

    def finalize(self, weights: WeightView) -> None:
        self._grow(1.0, weights)
        super().finalize(weights)

    def _grow(self, share: float, weights: WeightView) -> None:
        if share <= self.reached:
            return
        self.reached.fill_(share)
        for group in self.groups:
            # A rule attached later may have taken over weights.
            masks = {name: mask for name, mask in group.masks.items() if name in self.weights}
            scores = {name: self.score.score(ScoredWeight(weights.value(name))) for name in masks}
            size, pruned = sum(mask.mask.numel() for mask in masks.values()), sum(m.pruned for m in masks.values())
            if group.goal is None:
                assert self.rule.threshold is not None
                said = f"threshold={self.rule.threshold:g}"
                prune_below(masks, scores, self.rule.threshold * share)
            else:
                said = f"sparsity={group.goal:g}"
                aim = group.goal if share == 1 else group.start + (group.goal - group.start) * share
                if round(aim * size) <= pruned:
                    continue
                prune_to_count(masks, scores, round(aim * size))
            for name, mask in masks.items():
                if mask.pruned == mask.mask.numel() > 0:
                    raise emptied(name, mask.mask.numel(), said)
