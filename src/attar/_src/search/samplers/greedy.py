"""Descent by sensitivity: one hole at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attar._src.core.errors import SpecError
from attar._src.search.figures import Figures
from attar._src.search.samplers.sampler import Sampler, SamplerSpec, SearchTask
from attar._src.search.space import Between, Hole, Point

#: Values of a hole with numbers.
_STEPS = 5


class Greedy(SamplerSpec):
    """``greedy``: each hole alone from one end to the other, then down step by step, the least sensitive first.

    First every hole is measured alone: with its first value while the others have their last. The end with more bytes
    (with more milliseconds, where time is the aim) is the careful one, and the loss for each byte between both ends the
    sensitivity. From all careful ends on, each hole goes down one value, in turns from the least sensitive to the most,
    while files hold the bounds, or come nearer to them; any other step is taken back, and its hole stays. So it needs
    an aim of bytes or time, and a bound.
    """

    name: Literal["greedy"] = "greedy"

    def start(self, task: SearchTask) -> Sampler:
        if task.goal.aim == "drop":
            raise SpecError(
                "greedy goes down in bytes or time while files hold a bound; give max_drop, and minimise: bytes or ms"
            )
        return _Greedy(task)


def _ladder(path: str, hole: Hole) -> list[Any]:
    """Return the values of a hole in order."""
    if isinstance(hole, Between):
        return [*dict.fromkeys(hole.at(place / (_STEPS - 1)) for place in range(_STEPS))]
    if any(isinstance(each, dict | list | tuple) for each in hole.choose):
        raise SpecError(f"{path}: greedy goes through values in order, and these have none; use tpe or nsga2")
    return [*hole.choose]


class _Greedy(Sampler):
    """The next point is found by walking through what was told."""

    def __init__(self, task: SearchTask) -> None:
        super().__init__(task)
        self.ladders = {path: _ladder(path, hole) for path, hole in task.space.holes.items()}
        self._asked: dict[int, Point] = {}

    def ask(self, number: int) -> Point | None:
        key, told = self.task.space.key, {}
        for each in self.told.values():
            told[key(each.point)] = each.figures
        pending = self._asked | dict(self.begun)
        asked = {key(point) for other, point in pending.items() if other != number and other not in self.told}
        try:
            self._asked[number] = next(each for each in self._walk(told) if key(each) not in asked.union(told))
        except (StopIteration, KeyError):
            # At the end, or where the next point follows from one that is being tried.
            return None
        return self._asked[number]

    def _walk(self, known: Mapping[str, Figures | None]) -> Iterator[Point]:
        """Yield the points in order, each when the ones before are known."""
        goal, key = self.task.goal, self.task.space.key
        last = {path: ladder[-1] for path, ladder in self.ladders.items()}
        yield last
        alone = {path: last | {path: ladder[0]} for path, ladder in self.ladders.items()}
        yield from alone.values()
        start = known[key(last)]
        gains = {path: self._gain(start, known[key(point)]) for path, point in alone.items()}
        # From the careful end down.
        down = {path: ladder[::-1] if gains[path][0] >= 0 else ladder for path, ladder in self.ladders.items()}
        order = sorted(down, key=lambda path: gains[path][1])
        now = dict.fromkeys(order, 0)
        top = {path: down[path][0] for path in down}
        yield top
        broken = goal.excess(top_figures) if (top_figures := known[key(top)]) else math.inf
        stuck: set[str] = set()
        while free := [path for path in order if path not in stuck and now[path] + 1 < len(down[path])]:
            path = min(free, key=lambda each: (now[each], order.index(each)))
            lower = now | {path: now[path] + 1}
            point = {each: down[each][lower[each]] for each in down}
            yield point
            figures = known[key(point)]
            if figures is None or ((excess := goal.excess(figures)) > 0 and excess >= broken):
                stuck.add(path)
            else:
                now, broken = lower, excess

    def _gain(self, start: Figures | None, moved: Figures | None) -> tuple[float, float]:
        """Return what the first value of a hole saves over the last, and the loss for each byte or millisecond."""
        if start is None or moved is None:
            return 0.0, math.inf
        before, after = self.task.goal.value(start), self.task.goal.value(moved)
        saved = before - after
        if not math.isfinite(saved) or saved == 0:
            return 0.0, math.inf
        return saved, (moved.drop - start.drop) / saved
