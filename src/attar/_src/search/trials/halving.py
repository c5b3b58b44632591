"""Successive halving: short trainings first, of which the best go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def goes_on(halving: Halving, others: Sequence[Sequence[float]], scores: Sequence[float]) -> bool:
    """Return whether a trial goes on to its next rung.

    Args:
        halving: of the search.
        others: scores of other trials at their rungs, the smaller the better.
        scores: of the trial, so far.

    Example:
        >>> goes_on(Halving(), [[3.0], [1.0]], [2.0]), goes_on(Halving(), [[3.0], [1.0]], [0.5])
        (False, True)
    """
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=halving.factor)
    study = optuna.create_study(pruner=pruner)
    for each in others:
        _climb(study, halving, each)
    return len(scores) < halving.rungs and not _climb(study, halving, scores)


def _climb(study: optuna.Study, halving: Halving, scores: Sequence[float]) -> bool:
    """Report the scores of a trial, and return whether it is pruned at the last."""
    trial, pruned = study.ask(), False
    for rung, score in enumerate(scores):
        trial.report(score, halving.factor**rung)
        pruned = trial.should_prune()
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return pruned
