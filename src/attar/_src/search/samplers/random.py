"""Points at random: what every other sampler must beat."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from attar._src.search.samplers.sampler import Sampler, SamplerSpec, SearchTask
from attar._src.search.space import Choose, Hole, Point
from attar._src.train.seeds import derive_seed

#: Draws before a point that was tried is given again.
_DRAWS = 100


class RandomPoints(SamplerSpec):
    """``random``: every hole at random, alike over its values; no point twice while there are others."""

    name: Literal["random"] = "random"

    def start(self, task: SearchTask) -> Sampler:
        return _Random(task)


class _Random(Sampler):
    def ask(self, number: int) -> Point | None:
        space = self.task.space
        begun = [point for other, point in self.begun.items() if other != number]
        tried = {space.key(point) for point in (*begun, *(each.point for each in self.told.values()))}
        if len(tried) >= space.count:
            return None
        draw = np.random.default_rng(derive_seed(self.task.seed, "random", number))
        for _ in range(_DRAWS):
            point = draw_point(self.task, draw)
            if space.key(point) not in tried:
                return point
        return point


def draw_point(task: SearchTask, draw: np.random.Generator) -> Point:
    """Return a point of the task's space at random."""
    return {path: _drawn(hole, draw) for path, hole in task.space.holes.items()}


def _drawn(hole: Hole, draw: np.random.Generator) -> Any:
    if isinstance(hole, Choose) or (hole.whole and not hole.log):
        return hole.values[int(draw.integers(len(hole.values)))]
    return hole.at(float(draw.uniform()))
