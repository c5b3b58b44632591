import numpy as np
import pytest
from tests.search.layerwise.additive import additive

pytest.importorskip("stable_baselines3", reason="attar[search] is not installed")

from gymnasium.utils.env_checker import check_env

from attar._src.search.samplers.learned.environment import OBSERVED, LayerByLayer


def episode(environment, actions, budget=None):
    seen, _ = environment.reset(options=None if budget is None else {"budget": budget})
    observed = [seen]
    for action in actions:
        seen, reward, done, _, info = environment.step(action)
        observed.append(seen)
    assert done
    return observed, reward, info["point"]


def test_gymnasium_accepts_the_environment():
    check_env(LayerByLayer(additive(), lambda point: 1.0), skip_render_check=True)


def test_an_episode_ends_with_the_reward_of_its_point():
    problem = additive()
    environment = LayerByLayer(problem, problem.cost)
    actions = np.tile(np.array([1.0, 1.0], np.float32), (6, 1))
    _, reward, point = episode(environment, actions)
    assert reward == problem.cost(point) == problem.largest
    _, reward, _ = episode(environment, -actions, problem.smallest)
    assert reward == problem.smallest


@pytest.mark.parametrize("seed", range(4))
def test_any_actions_fit_the_budget_and_use_it(seed):
    problem, draw = additive(seed), np.random.default_rng(seed)
    environment = LayerByLayer(problem)
    budget = float(draw.uniform(problem.smallest, problem.largest))
    actions = draw.uniform(-1, 1, (6, 2)).astype(np.float32)
    _, _, point = episode(environment, actions, budget)
    assert problem.cost(point) <= budget
    # Moved by a little more, the same actions would not fit, but where all have the most.
    more = environment.fitted(actions, 1.5 * budget)
    assert problem.cost(point) <= problem.cost(more)
    assert budget - problem.cost(point) < max(max(own.values()) - min(own.values()) for own in problem.costs.values())


def test_observations_tell_what_was_spent_and_layers_apart():
    problem = additive()
    environment = LayerByLayer(problem)
    _, _, point = episode(environment, np.zeros((6, 2), np.float32), 600.0)
    seen, actions = environment.trajectory(point, 600.0)
    assert seen.shape == (6, len(OBSERVED) + 2)
    assert ((seen >= 0) & (seen <= 1)).all()
    spent, rest, error = (seen[:, OBSERVED.index(each)] for each in ("spent", "rest", "error"))
    assert (np.diff(spent) > 0).all()
    assert (np.diff(rest) < 0).all()
    assert error.min() == 0
    assert error.max() == 1
    assert environment.fitted(actions, problem.cost(point)) == point
    blind = LayerByLayer(problem, sees_errors=False)
    assert (blind.trajectory(point, 600.0)[0][:, OBSERVED.index("error")] == 0).all()
