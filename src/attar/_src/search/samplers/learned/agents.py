"""Samplers whose policy is learned by reinforcement: DDPG, and SAC."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from stable_baselines3 import DDPG, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from attar._src.search.figures import Figures
from attar._src.search.goal import Goal
from attar._src.search.layerwise.bracket import CostBracket, bound_of, sought
from attar._src.search.layerwise.problem import LayerwiseProblem, LayerwiseTask
from attar._src.search.samplers.learned.environment import OBSERVED, Floats32, LayerByLayer
from attar._src.search.samplers.learned.policy_file import load_policy, save_policy
from attar._src.search.samplers.sampler import Sampler, SamplerSpec, SearchTask
from attar._src.search.space import Point
from attar._src.train.seeds import derive_seed

#: Hidden units of the two layers of actor and critic.
_HIDDEN = [64, 64]
#: Transitions of an update.
_BATCH = 128


class LearnedSampler(SamplerSpec):
    """A policy that goes layer by layer (:class:`~.environment.LayerByLayer`) and learns from what is told.

    The reward of a trial is ``-log(v / v_max) - log(1 + excess)``, v what the aim makes small, v_max its most, and
    excess by how much the bounds are broken (:meth:`Goal.excess`): twice as many bytes weigh as much as twice the drop
    that is allowed. Rewards are standardized over all trials so far, which takes the place of the moving baseline of
    AMC and HAQ. Every layer of an episode has the reward of its end: a critic that must carry it back through 20 or 50
    layers has seen too few episodes after 150.

    Budgets lie below the least cost that held, further where trials hold and nearer where they do not.

    Attributes:
        warm_up: trials before the policy acts: all layers alike, with noise.
        updates: of the networks after each trial.
        noise: standard deviation of what is added to actions at first, of their range from -1 to 1; at the last trial
            a fifth of it.
        learning_rate: of actor and critic.
        sees_errors: whether the policy observes the measured error of a layer alone.
        load: a policy that a search saved, to begin with, of any network; the warm-up is left out.
        save: where the policy is written after each trial.
    """

    warm_up: Annotated[int, Field(ge=0)] = 20
    updates: Annotated[int, Field(ge=0)] = 60
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    sees_errors: bool = True
    load: str | None = None
    save: str | None = None

    #: Whether the policy draws its actions itself.
    draws: ClassVar[bool] = False

    def start(self, task: SearchTask) -> Sampler:
        return _Agent(task, LayerwiseTask.needed(task, self.name), self)

    def algorithm(self, environment: LayerByLayer, transitions: int, seed: int) -> OffPolicyAlgorithm:
        """Return the algorithm with untrained networks."""
        raise NotImplementedError


class Ddpg(LearnedSampler):
    """``ddpg``: deep deterministic policy gradients, as AMC and HAQ use it (Lillicrap et al. 2016, arXiv 1509.02971)."""

    name: Literal["ddpg"] = "ddpg"

    def algorithm(self, environment: LayerByLayer, transitions: int, seed: int) -> OffPolicyAlgorithm:
        return DDPG("MlpPolicy", environment, **_options(self, transitions, seed))


class Sac(LearnedSampler):
    """``sac``: soft actor-critic, a policy that draws, as widely as pays (Haarnoja et al. 2018, arXiv 1812.05905)."""

    name: Literal["sac"] = "sac"
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    draws: ClassVar[bool] = True

    def algorithm(self, environment: LayerByLayer, transitions: int, seed: int) -> OffPolicyAlgorithm:
        return SAC("MlpPolicy", environment, ent_coef="auto_0.1", **_options(self, transitions, seed))


def _options(spec: LearnedSampler, transitions: int, seed: int) -> dict[str, Any]:
    return {
        "learning_rate": spec.learning_rate,
        "buffer_size": transitions,
        "batch_size": _BATCH,
        "gamma": 1.0,
        "policy_kwargs": {"net_arch": _HIDDEN},
        "seed": seed % 2**31,
        "device": "cpu",
    }


class _Agent(Sampler):
    def __init__(self, task: SearchTask, problem: LayerwiseProblem, spec: LearnedSampler) -> None:
        super().__init__(task)
        self.problem, self.spec = problem, spec
        self.environment = LayerByLayer(problem, sees_errors=spec.sees_errors)
        self._layers = len(problem.layers)
        trials = task.trials or 1000
        self._trials, self._room = trials, 2 * trials * self._layers
        with _own_random(derive_seed(task.seed, spec.name, "networks")) as seed:
            self.model = spec.algorithm(LayerByLayer(problem), self._room, seed)
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
        level = draw.uniform(-1, 1, self.environment.action_space.shape[0])
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
        bound = bound_of(problem, goal)
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
        buffer.rewards[: self._layers * len(scaled), 0] = np.repeat(scaled, self._layers)
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
