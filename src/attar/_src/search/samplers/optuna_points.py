"""Samplers of Optuna, asked and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from attar._src.search.figures import Figures
from attar._src.search.samplers.sampler import Sampler, SearchTask
from attar._src.search.space import Choose, Hole, Point
from attar._src.train.seeds import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaSampler(Sampler):
    """A sampler of Optuna on a study in memory.

    A new one is made for each trial, with a seed that follows from the trial's number, so that what it asks for depends
    on the trials before and on nothing else.

    Args:
        task: what it works on.
        make: a sampler with a seed.
        objectives: the numbers that are to be small, of figures.
        constrained: whether the sampler learns by how much a file breaks the bounds.
    """

    def __init__(
        self,
        task: SearchTask,
        make: Callable[[int], optuna.samplers.BaseSampler],
        objectives: Callable[[Figures], Sequence[float]],
        *,
        count: int = 1,
        constrained: bool = False,
    ) -> None:
        super().__init__(task)
        self._make, self._objectives, self._constrained = make, objectives, constrained
        self._study = optuna.create_study(directions=["minimize"] * count)
        self._distributions = {path: _distribution(hole) for path, hole in task.space.holes.items()}
        self._asked: dict[int, optuna.Trial] = {}

    def ask(self, number: int) -> Point | None:
        trial = self._asked.get(number) or self._begin(number)
        holes = self.task.space.holes
        return {path: _value(holes[path], trial.params[path]) for path in holes}

    def _begin(self, number: int, given: Mapping[str, Any] | None = None) -> optuna.Trial:
        self._study.sampler = self._make(derive_seed(self.task.seed, "optuna", number) % 2**32)
        if given is not None:
            self._study.enqueue_trial(dict(given))
        self._asked[number] = self._study.ask(self._distributions)
        return self._asked[number]

    def tell(self, number: int, point: Point, figures: Figures | None) -> None:
        super().tell(number, point, figures)
        holes = self.task.space.holes
        given = {path: _parameter(hole, point[path]) for path, hole in holes.items()}
        # Also where another process or an earlier one asked, so that the sampler notes what it notes when it asks.
        trial = self._asked.get(number) or self._begin(number)
        if trial.params != given:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            trial = self._begin(number, given)
        del self._asked[number]
        if figures is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        if self._constrained:
            trial.set_constraint("goal", min(self.task.goal.excess(figures), 1e9))
        self._study.tell(trial, list(self._objectives(figures)))


def _distribution(hole: Hole) -> BaseDistribution:
    """Return what Optuna draws from: places of choices, in order if they have one, or numbers."""
    if isinstance(hole, Choose):
        last = len(hole.choose) - 1
        return IntDistribution(0, last) if hole.ordered else CategoricalDistribution([*range(last + 1)])
    low, high = hole.between
    if hole.whole:
        return IntDistribution(int(low), int(high), log=hole.log)
    return FloatDistribution(low, high, log=hole.log)


def _value(hole: Hole, parameter: Any) -> Any:
    return hole.choose[parameter] if isinstance(hole, Choose) else hole.near(parameter)


def _parameter(hole: Hole, value: Any) -> Any:
    return hole.index(value) if isinstance(hole, Choose) else value
