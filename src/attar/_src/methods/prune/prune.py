"""The rule that sets weights to zero: at once, in steps or gradually, while the rest is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from attar._src.core.errors import SpecError
from attar._src.core.spec import Spec
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.prune.masks import Mask, prune_below, prune_to_count, sparsity
from attar._src.methods.prune.scores import SCORES
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView

_Sparsity = Annotated[float, Field(ge=0, lt=1)]
_Share = Annotated[float, Field(ge=0, le=1)]


class Pruning(Spec):
    """How far weights are pruned, and when.

    With u the share of the way from ``begin`` to ``end`` that is done, the sparsity is ``s = s_0 + (s_f - s_0) f(u)``:

    | shape | f(u) | |
    |---|---|---|
    | once | 1 | one-shot |
    | steps | (floor(n u) + 1) / n | prune, train, prune again (Han et al. 2015, section 3) |
    | cubic | 1 - (1 - u)^3 | gradual (Zhu and Gupta 2017, "To prune, or not to prune", section 3) |

    ``s_0`` is the sparsity a weight comes with: a later stage goes on from what is there. A ``threshold`` goes the same
    way from 0.

    Attributes:
        score: what says how much an element matters.
        sparsity: the share of the elements to prune, exactly ``round(sparsity * n)`` of them.
        threshold: or the score below which every element is pruned.
        scope: ``layer`` prunes every weight alike, ``global`` the lowest scores of all weights together.
        shape: how the sparsity grows.
        steps: how many steps ``steps`` has.
        begin, end: shares of the stage.
        every: how many optimizer steps lie between two looks at the weights.
        layers: globs of the weights to prune.
        keep: globs of weights left alone.
        overrides: glob -> sparsity of its own, for each weight it matches.
    """

    score: str = "magnitude"
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
            raise ValueError("prune takes a sparsity or a threshold, one of the two")
        if self.end < self.begin:
            raise ValueError(f"prune ends at {self.end} of the stage, before it begins at {self.begin}")
        return self

    def share(self, progress: float) -> float:
        """Return f(u), 0 before ``begin``."""
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
    """Set the weights that matter least to zero, element by element, while the others are trained.

    Masks only grow; a pruned weight gets no gradient. At the end of the stage the weights themselves are zero. Not to
    be confused with ``prune_activations``, which makes what passes between layers sparse.
    """

    name: Literal["prune"] = "prune"

    def attach(self, learner: Learner) -> Constraint:
        """Return the masks on the weights that are chosen.

        Raises:
            UnknownName: a glob matches no layer, or there is no such score.
            SpecError: a weight would lose every element.
        """
        shares = select_weights(learner, self.sparsity, self.overrides, keep=self.keep, layers=self.layers)
        own = set(learner.select(tuple(self.overrides)))
        masks = {name: Mask(learner.tensor(name)) for name in shares}
        alone = {name for name in masks if name in own or (self.scope == "layer" and self.threshold is None)}
        groups = [_Group({name: masks[name]}, sparsity({name: masks[name]}), shares[name]) for name in sorted(alone)]
        rest = {name: mask for name, mask in masks.items() if name not in alone}
        groups += [_Group(rest, sparsity(rest), self.sparsity)] if rest else []
        return PruneConstraint(self, groups)


@dataclass(frozen=True)
class _Group:
    """Weights that are ranked together.

    Attributes:
        masks: name of a weight -> its mask.
        start: the sparsity it came with.
        goal: the sparsity at the end; None where a threshold rules.
    """

    masks: Mapping[str, Mask]
    start: float
    goal: float | None


class PruneConstraint(Constraint):
    """The masks of a :class:`Prune`. They only grow sparser, and stay as they are once the schedule has ended.

    Attributes:
        reached: how much of the way is done, 0-d.
    """

    order: ClassVar[int] = 0
    reached: torch.Tensor

    def __init__(self, rule: Prune, groups: Sequence[_Group]) -> None:
        super().__init__({name: mask for group in groups for name, mask in group.masks.items()})
        self.rule, self.groups = rule, groups
        self.score = SCORES[rule.score].score
        self.register_buffer("reached", torch.zeros((), dtype=torch.float64))
        for group in groups:
            for name, mask in group.masks.items():
                size = mask.mask.numel()
                if group.goal is not None and len(group.masks) == 1 and round(group.goal * size) >= size > 0:
                    raise _emptied(name, size, f"sparsity={group.goal:g}")

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Prune as far as the schedule is, every so many steps and as soon as it has ended.

        Raises:
            SpecError: a weight lost every element to a threshold or to the others it is ranked with.
        """
        rule = self.rule
        if rule.shape != "cubic" or progress.step % rule.every == 0 or progress.fraction >= rule.end:
            self._grow(rule.share(progress.fraction), weights)

    def finalize(self, weights: WeightView) -> None:
        """Prune as far as the rule asks, and let the weights themselves be zero there."""
        self._grow(1.0, weights)
        for name, mask in self._masks().items():
            weights.value(name).masked_fill_(~mask.mask, 0)

    def report(self) -> dict[str, Any]:
        """Return the sparsity reached."""
        return {"sparsity": sparsity(self._masks())}

    def _masks(self) -> dict[str, Mask]:
        return {name: mask for name, mask in self.weights.items() if isinstance(mask, Mask)}

    def _grow(self, share: float, weights: WeightView) -> None:
        if share <= self.reached:
            return
        self.reached.fill_(share)
        for group in self.groups:
            # A rule attached later may have taken weights over.
            masks = {name: mask for name, mask in group.masks.items() if name in self.weights}
            values = {name: weights.value(name) for name in masks}
            size, pruned = sum(mask.mask.numel() for mask in masks.values()), sum(m.pruned for m in masks.values())
            if group.goal is None:
                assert self.rule.threshold is not None
                said = f"threshold={self.rule.threshold:g}"
                prune_below(masks, values, self.score, self.rule.threshold * share)
            else:
                said = f"sparsity={group.goal:g}"
                aim = group.goal if share == 1 else group.start + (group.goal - group.start) * share
                if round(aim * size) <= pruned:
                    continue
                prune_to_count(masks, values, self.score, round(aim * size))
            for name, mask in masks.items():
                if mask.pruned == mask.mask.numel() > 0:
                    raise _emptied(name, mask.mask.numel(), said)


def _emptied(name: str, size: int, said: str) -> SpecError:
    # Rounded down, so that what is proposed leaves one element at least.
    most = math.floor((size - 1) / size * 1000) / 1000
    return SpecError(
        f"prune at {name!r}: {said} leaves 0 of {size} weights; use sparsity <= {most:g}, by overrides for it alone"
    )
