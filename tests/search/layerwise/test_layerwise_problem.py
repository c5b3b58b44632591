from dataclasses import replace

import pytest
from tests.search.layerwise.additive import additive, figures

from attar._src.core.errors import SpecError
from attar._src.search.goal import Goal
from attar._src.search.layerwise.bracket import CostBracket, bound_of, sought
from attar._src.search.layerwise.problem import LayerwiseTask
from attar._src.search.samplers.registry import SAMPLERS
from attar._src.search.samplers.sampler import SearchTask, ToldTrial


def uniform(problem, choice):
    return problem.point({each.name: choice for each in problem.layers})


def test_points_and_choices_are_inverse_and_costs_add_up():
    problem = additive()
    chosen = {each.name: problem.choices[i % 6] for i, each in enumerate(problem.layers)}
    point = problem.point(chosen)
    problem.space.check(point)
    assert problem.chosen(point) == chosen
    assert problem.cost(point) == 100 + sum(problem.costs[name][choice] for name, choice in chosen.items())
    assert problem.cost(uniform(problem, (2, 0.5))) == problem.smallest
    assert problem.cost(uniform(problem, (8, 0.0))) == problem.largest
    assert problem.shares((4, 0.0)).tolist() == [0.5, 1.0]


def test_a_bracket_lies_between_what_held_and_what_did_not():
    problem, goal = additive(), Goal(max_drop=0.5)
    points = [uniform(problem, each) for each in ((8, 0.0), (4, 0.0), (2, 0.0))]
    told = [ToldTrial(point, figures(problem, point)) for point in points]
    holding = [problem.cost(point) for point in points if goal.holds(figures(problem, point))]
    failing = [problem.cost(point) for point in points if not goal.holds(figures(problem, point))]
    assert CostBracket.of(problem, goal, told) == CostBracket(min(holding), max(failing))
    # What failed to be made did not hold; nothing is known without trials.
    assert CostBracket.of(problem, goal, [ToldTrial(points[0], None)]) == CostBracket(None, problem.largest)
    assert CostBracket.of(problem, goal, []) == CostBracket()


def test_a_bound_counts_what_costs_count():
    problem = additive()
    assert bound_of(problem, Goal(max_bytes=500, max_ms=2)) == 500
    assert bound_of(replace(problem, relative=True), Goal(max_bytes=500)) is None
    assert sought(problem, Goal(max_drop=1))
    assert not sought(problem, Goal(max_bytes=500))


@pytest.mark.parametrize("name", ["integer_program", "ddpg", "sac"])
def test_a_search_without_layers_is_refused_with_what_to_take(name):
    spec = dict(zip(SAMPLERS, SAMPLERS.values(), strict=True))[name]()
    with pytest.raises(SpecError, match=r"no layers: its holes are l0\.bits.*take random, tpe or nsga2"):
        spec.start(SearchTask(additive().space, Goal(max_drop=1)))


def test_an_integer_program_needs_errors():
    problem = additive(measured=False)
    task = LayerwiseTask(problem.space, Goal(max_drop=1), problem=problem)
    spec = dict(zip(SAMPLERS, SAMPLERS.values(), strict=True))["integer_program"]()
    with pytest.raises(SpecError, match="errors of single layers, and none were measured"):
        spec.start(task)
