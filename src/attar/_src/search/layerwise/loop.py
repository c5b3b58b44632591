"""A layerwise search: ask, judge quickly, tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from attar._src.core.progress import Bar
from attar._src.search.layerwise.quick import QuickFigures
from attar._src.search.samplers.sampler import Sampler
from attar._src.search.space import Point


class QuickTrial(NamedTuple):
    """A point that was tried."""

    point: Point
    figures: QuickFigures


def try_points(
    sampler: Sampler,
    judge: Callable[[Point], QuickFigures],
    count: int,
    *,
    first: Sequence[Point] = (),
    known: Sequence[QuickTrial] = (),
) -> Iterator[QuickTrial]:
    """Yield trials until there are ``count``, or nothing is left to try.

    Args:
        sampler: that knows nothing yet.
        judge: of a point.
        count: of all trials, those of ``first`` and ``known`` included.
        first: points to begin with, whatever the sampler would ask for.
        known: trials that were made before; they are told and not yielded.
    """
    with Bar("search", count, done=len(known)) as bar:
        for number in range(count):
            if number < len(known):
                sampler.tell(number, *known[number])
                continue
            point = first[number] if number < len(first) else sampler.ask(number)
            if point is None:
                return
            trial = QuickTrial(point, judge(point))
            sampler.tell(number, *trial)
            bar.step()
            yield trial
