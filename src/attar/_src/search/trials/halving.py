"""Successive halving: short trainings first, of which the best go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any

import optuna
from pydantic import Field

from attar._src.core.spec import Spec


class Halving(Spec):
    """Rungs of a search: trainings of a ninth and a third of their epochs, then whole ones.

    A trial goes on to the next rung if its score is among the best ``1 / factor`` of those that were at this one so
    far. Li et al., "A system for massively parallel hyperparameter tuning", 2020 (ASHA), without its promotion of
    earlier trials; the decision is Optuna's ``SuccessiveHalvingPruner``.

    Attributes:
        rungs: of every trial, the last with all epochs.
        factor: between the epochs of two rungs, and the share of trials that stop.

    Example:
        >>> [str(share) for share in Halving().shares]
        ['1/9', '1/3', '1']
    """

    rungs: Annotated[int, Field(ge=2, le=8)] = 3
    factor: Annotated[int, Field(ge=2)] = 3

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The share of the epochs at each rung."""
        return tuple(Fraction(1, self.factor**behind) for behind in reversed(range(self.rungs)))


def with_epochs(tree: Any, share: Fraction) -> Any:
    """Return a recipe whose stages have a share of their epochs, rounded, at least 1.

    Example:
        >>> with_epochs({"stages": [{"stage": "train", "epochs": 20}]}, Fraction(1, 3))
        {'stages': [{'stage': 'train', 'epochs': 7}]}
    """
    if isinstance(tree, Mapping):
        return {
            key: max(1, round(share * value)) if key == "epochs" and type(value) is int else with_epochs(value, share)
            for key, value in tree.items()
        }
    return [with_epochs(each, share) for each in tree] if isinstance(tree, list | tuple) else tree


@dataclass
class Rungs:
    """The scores at each rung, in the order in which trials reached them."""

    halving: Halving
    _study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=self.halving.factor)
        self._study = optuna.create_study(pruner=pruner)

    def begin(self, before: Sequence[Sequence[float]]) -> RungTrial:
        """Return a trial at no rung yet; ``before`` are the scores at the rungs of trials that are not known yet."""
        for scores in before:
            trial = RungTrial(self.halving, self._study.ask())
            for score in scores:
                trial.goes_on(score)
            trial.end()
        return RungTrial(self.halving, self._study.ask())


@dataclass
class RungTrial:
    """One trial on its way up."""

    halving: Halving
    _trial: optuna.Trial
    scores: list[float] = field(default_factory=list)

    def goes_on(self, score: float) -> bool:
        """Return whether a trial with this score at its rung should have the next; never from the last."""
        self._trial.report(score, self.halving.factor ** len(self.scores))
        self.scores.append(score)
        pruned: bool = self._trial.should_prune()
        return not pruned and len(self.scores) < self.halving.rungs

    def end(self) -> None:
        """Count the trial among those that others are compared with."""
        self._trial.study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)
