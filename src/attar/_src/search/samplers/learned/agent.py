"""The agent: networks of stable-baselines3 that are asked for a point layer by layer, and told its figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DDPG, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from attar._src.search.figures import Figures
from attar._src.search.goal import Goal
from attar._src.search.layerwise.bracket import CostBracket, bound_of, sought
from attar._src.search.layerwise.problem import LayerwiseProblem
from attar._src.search.samplers.learned.environment import OBSERVED, Floats32, LayerByLayer
from attar._src.search.samplers.learned.policy_file import load_policy, save_policy
from attar._src.search.samplers.learned.specs import LearnedSampler
from attar._src.search.samplers.sampler import Sampler, SearchTask
from attar._src.search.space import Point
from attar._src.train.seeds import derive_seed

#: Hidden units of the two layers of actor and critic.
_HIDDEN = [64, 64]
#: Transitions of an update.
_BATCH = 128


def _algorithm(spec: LearnedSampler, environment: LayerByLayer, transitions: int, seed: int) -> OffPolicyAlgorithm:
    """Return the algorithm of a sampler with untrained networks."""
    options: dict[str, Any] = {
        "learning_rate": spec.learning_rate,
        "buffer_size": transitions,
        "batch_size": _BATCH,
        "gamma": 1.0,
        "policy_kwargs": {"net_arch": _HIDDEN},
        "seed": seed % 2**31,
        "device": "cpu",
    }
    if spec.draws:
        return SAC("MlpPolicy", environment, ent_coef="auto_0.1", **options)
    return DDPG("MlpPolicy", environment, **options)


class Agent(Sampler):
    """Asks its policy, and learns from what it is told; :class:`LearnedSampler` says how."""

    def __init__(self, task: SearchTask, problem: LayerwiseProblem, spec: LearnedSampler) -> None:
        super().__init__(task)
        self.problem, self.spec = problem, spec
        self.environment = LayerByLayer(problem, sees_errors=spec.sees_errors)
        self._layers = len(problem.layers)
        trials = task.trials or 1000
        self._trials, self._room = trials, 2 * trials * self._layers
        with _own_random(derive_seed(task.seed, spec.name, "networks")) as seed:
            self.model = _algorithm(spec, LayerByLayer(problem), self._room, seed)
        self.model.set_logger(configure(None, []))
        self._warm = spec.warm_up
        if spec.load is not None:
            self._put(load_policy(task.folder / spec.load, self._about(), self.model.policy.state_dict()))
            self._warm = 0
        self._rewards: list[float] = []

    def ask(self, number: int) -> Point | None:
        draw = np.random.default_rng(derive_seed(self.task.seed, self.spec.name, number))
        budget = self._budget(draw)
        observation, _ = self.environment.reset(options={"budget": budget})
        level = draw.uniform(-1, 1, len(self.problem.dimensions))
        done, noise = False, self._noise(number)
        with _own_random(derive_seed(self.task.seed, self.spec.name, number, "actions")):
            while not done:
                if number < self._warm:
                    action = level + (noise if number else 0.0) * draw.standard_normal(len(level))
                else:
                    action, _ = self.model.predict(observation, deterministic=not self.spec.draws)
                    action = action + noise * draw.standard_normal(len(level))
                observation, _, done, _, _ = self.environment.step(np.clip(action, -1, 1).astype(np.float32))
        return dict(self.environment.point)

    def tell(self, number: int, point: Point, figures: Figures | None) -> None:
        super().tell(number, point, figures)
        if figures is None:
            return
        self._rewards.append(reward_of(self.task.goal, figures, self.problem))
        with _own_random(derive_seed(self.task.seed, self.spec.name, number, "updates")):
            self._learn(*self.environment.trajectory(point, self.problem.cost(point)))
        if self.spec.save is not None:
            save_policy(self.task.folder / self.spec.save, self.model.policy.state_dict(), self._about())

    def _budget(self, draw: np.random.Generator) -> float:
        """Return what the next file may take."""
        problem, goal = self.problem, self.task.goal
        bound = bound_of(problem, goal, self.told.values())
        top = problem.largest if bound is None else min(bound, problem.largest)
        if not sought(problem, goal):
            return top
        least, step = math.inf, math.log(1 / 0.75)
        for each in self.told.values():
            holds = each.figures is not None and goal.holds(each.figures)
            cost = problem.cost(each.point)
            if holds and cost < least:
                step, least = (step if math.isinf(least) else min(1.5 * step, math.log(1 / 0.75))), cost
            elif math.isfinite(least):
                step = max(0.85 * step, 0.01)
        if math.isinf(least):
            failing = CostBracket.of(problem, goal, self.told.values()).failing
            return top if failing is None else failing + (top - failing) * float(draw.uniform())
        return max(least * math.exp(-step * float(draw.uniform(0.3, 1.0))), problem.smallest)

    def _noise(self, number: int) -> float:
        done = min(number / max(self._trials - 1, 1), 1.0)
        return self.spec.noise * 0.2**done if number >= self._warm else max(self.spec.noise, 0.3)

    def _learn(self, seen: Floats32, actions: Floats32) -> None:
        """Add an episode whose every layer has the reward of its end, and update the networks."""
        buffer = self.model.replay_buffer
        assert isinstance(buffer, ReplayBuffer)
        for place in range(self._layers):
            behind = seen[min(place + 1, self._layers - 1)]
            buffer.add(seen[place], behind, actions[place], np.zeros(1), np.ones(1), [{}])
        rewards = np.array(self._rewards)
        scaled = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        # The oldest episodes give way where there are more than the buffer holds.
        room = self._room // self._layers
        places = np.arange(max(len(scaled) - room, 0), len(scaled))
        buffer.rewards.reshape(room, self._layers)[places % room] = scaled[places, None]
        if len(rewards) > 1:
            self.model.train(self.spec.updates, _BATCH)

    def _put(self, state: dict[str, torch.Tensor]) -> None:
        self.model.policy.load_state_dict(state)

    def _about(self) -> dict[str, Any]:
        return {
            "sampler": self.spec.name,
            "observed": list(OBSERVED),
            "dimensions": [*self.problem.dimensions],
            "hidden": _HIDDEN,
            "sees_errors": self.spec.sees_errors,
        }


def reward_of(goal: Goal, figures: Figures, problem: LayerwiseProblem) -> float:
    """Return the reward of a trial: see :class:`LearnedSampler`."""
    most = {"bytes": problem.largest, "ms": problem.largest, "drop": 1.0}[goal.aim]
    value = max(goal.value(figures), 0.0)
    # A drop may be 0 or less, where there is nothing left to gain.
    taken = math.log1p(value) if goal.aim == "drop" else math.log(max(value, 1e-9) / most)
    return -taken - math.log1p(goal.excess(figures))


@contextmanager
def _own_random(seed: int) -> Iterator[int]:
    """Seed what stable-baselines3 draws from, NumPy's and PyTorch's generators, and leave them as they were after."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield seed
        finally:
            np.random.set_state(before)
