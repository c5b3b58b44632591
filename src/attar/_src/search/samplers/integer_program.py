"""The integer program of the allocation, at the size that what was tried leaves."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.methods.allocate.choose import by_name
from attar._src.search.layerwise.bracket import CostBracket, bound_of, sought
from attar._src.search.layerwise.problem import LayerChoice, LayerwiseProblem, LayerwiseTask
from attar._src.search.samplers.sampler import Sampler, SamplerSpec, SearchTask
from attar._src.search.space import Point
from attar._src.train.seeds import derive_seed

#: Below a cost that held, the next while none has failed; and how near the two come before errors are drawn.
_STEP, _NEAR = 0.75, 1.01
#: Programs that are solved at most for one cost, where costs of layers do not add up.
_CORRECTIONS = 8
#: Draws before a point that was tried is given again.
_DRAWS = 20


class IntegerProgram(SamplerSpec):
    """``integer_program``: the least sum of the errors of single layers whose costs fit, at costs towards the goal.

    Costs become smaller while points hold the goal, then halve the way between the last that held and the first that
    did not, as ``attar.compress`` does. When these are one per cent apart, the errors are the measured ones times
    ``exp(spread z)``, z normal, and the cost just below the least that held: errors do not add up exactly, and a
    program of other errors is another guess of the same kind.

    Attributes:
        spread: of the logarithms of the errors that are drawn.
    """

    by_layer: ClassVar[bool] = True

    name: Literal["integer_program"] = "integer_program"
    spread: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3

    def start(self, task: SearchTask) -> Sampler:
        problem = LayerwiseTask.needed(task, self.name)
        if problem.errors is None:
            raise SpecError(
                f"sampler {self.name!r} reads the errors of single layers, and none were measured; measure them, or "
                "take another sampler"
            )
        return _Programs(task, problem, self.spread)


class _Programs(Sampler):
    def __init__(self, task: SearchTask, problem: LayerwiseProblem, spread: float) -> None:
        super().__init__(task)
        self.problem, self.spread = problem, spread

    def ask(self, number: int) -> Point | None:
        tried = {self.task.space.key(each.point) for each in self.told.values()}
        if len(tried) >= self.task.space.count:
            return None
        # Of several that are asked for at once the first follows the measured errors, and others go further off.
        ahead = max(number - len(self.told), 0)
        draw = np.random.default_rng(derive_seed(self.task.seed, "integer_program", number))
        most, exact = self._most(draw)
        if exact and not ahead:
            point = self._optimum(most, None, 0.0)
            if self.task.space.key(point) not in tried:
                return point
        for _ in range(_DRAWS):
            point = self._optimum(most, draw, self.spread * max(ahead, 1))
            if self.task.space.key(point) not in tried:
                break
        return point

    def _most(self, draw: np.random.Generator) -> tuple[float, bool]:
        """Return what the next point may cost, and whether the measured errors decide."""
        problem, goal = self.problem, self.task.goal
        bracket = CostBracket.of(problem, goal, self.told.values())
        bound = bound_of(problem, goal, self.told.values())
        top = problem.largest if bound is None else min(bound, problem.largest)
        if not sought(problem, goal):
            return top, problem.relative or not self.told
        if bracket.holding is None:
            return top, bracket.failing is None
        if bracket.failing is None:
            return max(_STEP * bracket.holding, problem.smallest), True
        if bracket.holding > _NEAR * bracket.failing:
            return (bracket.holding * bracket.failing) ** 0.5, True
        return max(bracket.holding * (1 - 0.05 * draw.uniform()), problem.smallest), False

    def _optimum(self, most: float, draw: np.random.Generator | None, spread: float) -> dict[str, float]:
        """Return the point with the least sum of errors, drawn ones if ``draw`` is given, of at most this cost."""
        problem = self.problem
        assert problem.errors is not None
        errors: dict[str, dict[LayerChoice, float]] = {
            name: {
                choice: error * (1.0 if draw is None else float(np.exp(spread * draw.standard_normal())))
                for choice, error in own.items()
            }
            for name, own in problem.errors.items()
        }
        room, least = most - problem.fixed, math.inf
        best = {name: min(own, key=own.__getitem__) for name, own in problem.costs.items()}
        for _ in range(_CORRECTIONS):
            found = by_name(errors, problem.costs, room)
            if found is None:
                break
            beyond = problem.cost_of(found) - most
            if problem.whole is None:
                return problem.point(found)
            # Costs that do not add up: the next program has as much less room as this one took too much, or more as it
            # left.
            room -= 1.05 * beyond
            lost = sum(errors[name][choice] for name, choice in found.items())
            if beyond <= 0 and lost < least:
                best, least = found, lost
        return problem.point(best)
