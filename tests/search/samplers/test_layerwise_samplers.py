"""The samplers that know layers: what they ask for follows from what they were told, and is better than chance."""

import numpy as np
import pytest
from tests.search.layerwise.additive import additive, best_of_all, figures

from attar._src.search.goal import Goal
from attar._src.search.layerwise.problem import LayerwiseTask
from attar._src.search.samplers.integer_program import IntegerProgram
from attar._src.search.samplers.learned.specs import Ddpg, Sac
from attar._src.search.samplers.random import RandomPoints

pytest.importorskip("stable_baselines3", reason="attar[search] is not installed")

GOAL = Goal(max_drop=0.5)
QUICK = [IntegerProgram(), Ddpg(warm_up=2, updates=2), Sac(warm_up=2, updates=2)]


def searched(spec, problem, count, *, goal=GOAL, seed=0, known=()):
    """Trials of a new sampler that is told what is known."""
    sampler = spec.start(LayerwiseTask(problem.space, goal, seed, count, problem=problem))
    for number, (point, seen) in enumerate(known):
        sampler.tell(number, point, seen)
    trials = list(known)
    for number in range(len(known), count):
        point = sampler.ask(number)
        assert sampler.ask(number) == point
        problem.space.check(point)
        trials.append((point, figures(problem, point)))
        sampler.tell(number, *trials[-1])
    return trials


def fewest(trials, goal=GOAL):
    return min((seen.file_bytes for _, seen in trials if goal.holds(seen)), default=np.inf)


@pytest.mark.parametrize("spec", QUICK, ids=lambda each: each.name)
def test_a_sampler_that_is_told_the_journal_goes_on_alike(spec):
    problem = additive()
    whole = searched(spec, problem, 8)
    assert searched(spec, problem, 8, known=whole[:5]) == whole
    assert searched(spec, problem, 8, seed=1) != whole or spec.name == "integer_program"


@pytest.mark.parametrize("spec", QUICK, ids=lambda each: each.name)
def test_a_bound_on_bytes_holds_by_construction(spec):
    problem = additive()
    goal = Goal(max_bytes=1500)
    trials = searched(spec, problem, 6, goal=goal)
    assert all(seen.file_bytes <= 1500 for _, seen in trials)
    # The budget is used: nothing is left that would take a layer of a hundred bytes further.
    assert max(seen.file_bytes for _, seen in trials) > 1200


def test_the_integer_program_finds_the_optimum():
    problem = additive()
    assert fewest(searched(IntegerProgram(), problem, 12)) <= 1.03 * best_of_all(problem, GOAL)


@pytest.mark.parametrize("spec", [Ddpg(warm_up=6, updates=5), Sac(warm_up=6, updates=5)], ids=lambda e: e.name)
def test_a_learned_policy_is_better_than_points_at_random(spec):
    problem = additive(layers=8)
    chance = fewest(searched(RandomPoints(), problem, 25))
    assert fewest(searched(spec, problem, 25)) < 0.9 * chance


def test_several_points_may_be_asked_for_before_one_is_told():
    problem = additive(layers=8, bits=(2, 3, 4, 5, 6, 8), sparsity=(0.75, 0.5, 0.25, 0.0))
    sampler = IntegerProgram().start(LayerwiseTask(problem.space, GOAL, 0, 10, problem=problem))
    for number in range(2):
        point = sampler.ask(number)
        sampler.tell(number, point, figures(problem, point))
    asked = [sampler.ask(number) for number in range(2, 6)]
    assert len({problem.space.key(each) for each in asked}) > 1


def test_a_trial_that_failed_is_no_reward():
    problem = additive()
    for spec in QUICK:
        sampler = spec.start(LayerwiseTask(problem.space, GOAL, 0, 10, problem=problem))
        sampler.tell(0, sampler.ask(0), None)
        problem.space.check(sampler.ask(1))
