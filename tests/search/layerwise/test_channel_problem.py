"""The layerwise problem of channels: bytes that do not add up, budgets that hold by construction, all samplers."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.pruning import rank_channels
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.model.capture import capture
from attar._src.search.goal import Goal
from attar._src.search.layerwise.channels import channel_problem
from attar._src.search.layerwise.loop import try_points
from attar._src.search.layerwise.problem import LayerFacts, LayerwiseTask
from attar._src.search.layerwise.quick import QuickFigures
from attar._src.search.samplers.learned.environment import LayerByLayer
from attar._src.search.samplers.registry import SAMPLERS
from attar._src.work.calibration_inputs import CalibrationInputs

SHARES = (0, 0.25, 0.5, 0.75)


@pytest.fixture(scope="module")
def ranked():
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32, 4)),
    ).eval()
    x = torch.randn(16, 3, 8, 8)
    judged = JudgedChannels(CalibrationInputs(((x,),)))
    return rank_channels(
        net, capture(net, (x[:2],), names=("input",)), ChannelPruning(channels=0.5), dict, judged=judged
    )


@pytest.fixture(scope="module")
def problem(ranked):
    layers = [LayerFacts(group.name, 3, len(group.units)) for group in ranked.removable.found.groups]
    return channel_problem(ranked, ChannelPruning(overrides={"0": 0.0}, least=0.0), layers, SHARES)


def removed(ranked, shares):
    made = ranked.without(ChannelPruning(overrides=shares, least=0.0))
    return made.module


def test_the_cost_of_a_point_is_that_of_the_module_without_these_channels(ranked, problem):
    """Guards against costs of layers that are added up: half of two neighbours leaves a quarter between them."""
    draw = np.random.default_rng(0)
    for _ in range(5):
        chosen = {each.name: (SHARES[draw.integers(4)],) for each in problem.layers}
        module = removed(ranked, {name: share for name, (share,) in chosen.items()})
        assert problem.cost(problem.point(chosen)) == 4 * sum(each.numel() for each in module.parameters())
    assert problem.largest == 4 * sum(each.numel() for each in ranked.module.parameters())
    assert problem.smallest == problem.cost(problem.point({each.name: (0.75,) for each in problem.layers}))
    assert {own[(0,)] for own in problem.errors.values()} == {0.0}
    assert all(own[(0.75,)] > own[(0.25,)] > 0 for own in problem.errors.values())


@pytest.mark.parametrize("options", [{"least": 0.5}, {"round_to": 8}])
def test_errors_are_those_of_what_a_trial_removes(ranked, options):
    """Guards against an error of three quarters of a group of which half can be removed."""
    layers = [LayerFacts(group.name, 3, len(group.units)) for group in ranked.removable.found.groups]
    made = channel_problem(ranked, ChannelPruning(overrides={"0": 0.0}, **options), layers, SHARES)
    for name, own in made.costs.items():
        same = [(a, b) for a in own for b in own if own[a] == own[b]]
        assert len(same) > len(own)
        assert all(made.errors[name][a] == made.errors[name][b] for a, b in same)


def test_a_policy_keeps_its_budget(problem):
    """AMC: an episode ends with a network that the budget allows, whatever the actions."""
    environment, draw = LayerByLayer(problem), np.random.default_rng(1)
    for share in (0.2, 0.5, 0.9):
        budget = problem.smallest + share * (problem.largest - problem.smallest)
        environment.reset(options={"budget": budget})
        for _ in problem.layers:
            seen, _, done, _, _ = environment.step(draw.uniform(-1, 1, 1).astype(np.float32))
            assert environment.observation_space.contains(seen)
        assert done
        assert problem.cost(environment.point) <= budget
        # The most that fits: no layer alone keeps one step more within it by moving all alike.
        assert problem.cost(environment.point) >= problem.smallest


@pytest.mark.parametrize("name", ["integer_program", "ddpg", "sac"])
def test_every_sampler_that_goes_layer_by_layer_takes_channels(problem, name):
    bound = int(0.5 * problem.largest)
    task = LayerwiseTask(problem.space, Goal(max_bytes=bound, minimise="drop"), 0, 8, problem=problem)
    options = {} if name == "integer_program" else {"warm_up": 2, "updates": 2}

    def judge(point):
        chosen = problem.chosen(point)
        lost = sum(problem.errors[layer][choice] for layer, choice in chosen.items())
        return QuickFigures(round(problem.cost(point)), lost, 16)

    trials = [*try_points(SAMPLERS[name](**options).start(task), judge, 8)]
    assert len(trials) == 8
    # The goal bounds bytes: what is asked for holds it.
    assert all(each.figures.file_bytes <= bound for each in trials)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_an_integer_program_uses_the_room_that_a_bound_leaves(problem, share):
    """Guards against points that cost too much by the sum over layers, and fit as a whole: they were never tried."""
    bound = share * problem.largest
    task = LayerwiseTask(problem.space, Goal(max_bytes=int(bound), minimise="drop"), 0, 8, problem=problem)

    def lost(chosen):
        return sum(problem.errors[layer][choice] for layer, choice in chosen.items())

    every = [dict(zip(problem.costs, each, strict=True)) for each in product(problem.choices, repeat=3)]
    fitting = sorted(lost(each) for each in every if problem.cost_of(each) <= bound)
    asked = problem.chosen(SAMPLERS["integer_program"]().start(task).ask(0))
    assert problem.cost_of(asked) <= bound
    assert lost(asked) <= 1.05 * fitting[0]


@pytest.mark.parametrize("name", ["integer_program", "ddpg", "sac"])
def test_a_bound_is_on_the_file_after_later_stages(problem, name):
    """Guards against channels removed until the weights fit in floating point, where 4 bits follow."""
    relative = replace(problem, relative=True)
    bound = int(0.6 * 0.2 * problem.largest)
    task = LayerwiseTask(problem.space, Goal(max_bytes=bound, minimise="drop"), 0, 8, problem=relative)
    options = {} if name == "integer_program" else {"warm_up": 2, "updates": 2}

    def judge(point):
        lost = sum(problem.errors[layer][choice] for layer, choice in problem.chosen(point).items())
        return QuickFigures(round(0.2 * problem.cost(point)) + 100, lost, 16)

    trials = [*try_points(SAMPLERS[name](**options).start(task), judge, 8)]
    assert trials[0].figures.file_bytes == judge(problem.point(dict.fromkeys(problem.costs, (0,)))).file_bytes
    held = [each.figures.file_bytes for each in trials if each.figures.file_bytes <= bound]
    assert max(held) > 0.7 * bound
