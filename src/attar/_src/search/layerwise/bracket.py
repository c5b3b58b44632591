"""What the files of a layerwise search may take next, of what held the goal so far."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from attar._src.search.goal import Goal
from attar._src.search.layerwise.problem import LayerwiseProblem
from attar._src.search.samplers.sampler import ToldTrial


@dataclass(frozen=True)
class CostBracket:
    """Costs between which the smallest file lies that holds.

    Attributes:
        holding: the least cost of a point that held; None if none did.
        failing: the largest cost below it of one that did not; None if there is none.
    """

    holding: float | None = None
    failing: float | None = None

    @classmethod
    def of(cls, problem: LayerwiseProblem, goal: Goal, told: Iterable[ToldTrial]) -> Self:
        """Return the bracket of some trials; one that failed did not hold."""
        costs = [(problem.cost(each.point), each.figures is not None and goal.holds(each.figures)) for each in told]
        holding = min((cost for cost, holds in costs if holds), default=None)
        below = [cost for cost, holds in costs if not holds and (holding is None or cost < holding)]
        return cls(holding, max(below, default=None))


def bound_of(problem: LayerwiseProblem, goal: Goal, told: Iterable[ToldTrial] = ()) -> float | None:
    """Return the bound of a goal on what the problem's costs count; None without one.

    Of a problem whose costs are relative, it is the cost that the bound has by the trial nearest to it, None before the
    first: of 8,000 bytes in floating point 1,000 may be left in 4 bits.
    """
    timed = problem.unit == "ms"
    bound = goal.max_ms if timed else goal.max_bytes
    if bound is None or not problem.relative:
        return bound
    most: float = bound
    files = [(each.figures.ms if timed else each.figures.file_bytes, each.point) for each in told if each.figures]
    known = [(took, point) for took, point in files if took]
    if not known:
        return None
    took, point = min(known, key=lambda each: abs(math.log(each[0] / most)))
    return most * problem.cost(point) / took


def sought(problem: LayerwiseProblem, goal: Goal) -> bool:
    """Return whether the least cost that holds is sought: it is the aim, and no given one."""
    return goal.aim == problem.unit
