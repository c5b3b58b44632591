"""Tree-structured Parzen estimator."""

from __future__ import annotations

from typing import Annotated, Literal

from optuna.samplers import TPESampler
from pydantic import Field

from attar._src.search.samplers.optuna_points import OptunaSampler
from attar._src.search.samplers.sampler import Sampler, SamplerSpec, SearchTask


class Tpe(SamplerSpec):
    """``tpe``: densities of the better and the other points; where their ratio is large comes next.

    Bergstra et al., "Algorithms for hyper-parameter optimization", 2011, in all holes at once, by Optuna. A file is
    better by ``Goal.score``: first the bounds, then the aim.

    Attributes:
        startup: points at random before.
        candidates: points of which the best is taken.
    """

    name: Literal["tpe"] = "tpe"
    startup: Annotated[int, Field(ge=1)] = 10
    candidates: Annotated[int, Field(ge=1)] = 24

    def start(self, task: SearchTask) -> Sampler:
        def make(seed: int) -> TPESampler:
            return TPESampler(
                seed=seed, n_startup_trials=self.startup, n_ei_candidates=self.candidates, multivariate=True
            )

        return OptunaSampler(task, make, lambda figures: [task.goal.score(figures)])
