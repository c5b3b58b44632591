"""Non-dominated sorting genetic algorithm."""

from __future__ import annotations

from typing import Annotated, Literal

from optuna.samplers import NSGAIISampler
from pydantic import Field

from attar._src.search.figures import Figures
from attar._src.search.samplers.optuna_points import OptunaSampler
from attar._src.search.samplers.sampler import Sampler, SamplerSpec, SearchTask


class Nsga2(SamplerSpec):
    """``nsga2``: generations of points on the front of bytes and loss, and of time if it counts.

    Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002, by Optuna. A point that holds the
    bounds beats one that does not.

    Attributes:
        population: points of a generation.
    """

    name: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=2)] = 20

    def start(self, task: SearchTask) -> Sampler:
        def make(seed: int) -> NSGAIISampler:
            return NSGAIISampler(seed=seed, population_size=self.population)

        def objectives(figures: Figures) -> list[float]:
            found = [float(figures.file_bytes), figures.drop]
            return [*found, figures.ms or 0.0] if task.goal.timed else found

        return OptunaSampler(task, make, objectives, count=3 if task.goal.timed else 2, constrained=True)
