"""The environment of reinforcement learning: an episode walks over the layers, an action is what one becomes.

After AMC (He, Lin, Liu, Wang, Li, Han, "AMC: AutoML for model compression and acceleration on mobile devices", ECCV
2018, arXiv 1802.03494, sections 3.2 to 3.4) and HAQ (Wang, Liu, Lin, Lin, Han, "HAQ: hardware-aware automated
quantization with mixed precision", CVPR 2019, arXiv 1811.08886, sections 3.1 to 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from attar._src.search.layerwise.problem import LayerChoice, LayerFacts, LayerwiseProblem
from attar._src.search.space import Point

Floats32 = NDArray[np.float32]
#: Halvings of the common shift of all actions.
_HALVINGS = 24
#: What is observed beside the last action.
OBSERVED = (
    "place", "inputs", "outputs", "kernel", "stride", "positions", "elements", "macs", "depthwise", "error", "spent",
    "rest", "budget",
)  # fmt: skip


class LayerByLayer(gymnasium.Env[Floats32, Floats32]):
    """Choices of all layers in order, under a budget.

    Observed of a layer, each from 0 to 1, is what AMC and HAQ observe: its place, channels, kernel, stride, positions,
    elements, multiplications and whether it is depthwise, as logarithms over the largest of the network; what the
    layers before take and those behind may take, over the most that the network takes; the budget likewise; and the
    action before. With ``sees_errors`` also the measured error of the layer alone. Without measurements it is 0.

    An action has a number from -1 (takes least) to 1 (takes most) for each dimension of a choice. The budget holds by
    construction: after the last layer all actions are moved by the same amount, the largest with which the choices
    fit. (AMC bounds the actions of the last layers, and HAQ takes bits away layer by layer; both let the early layers
    spend what the late ones need.)

    Args:
        problem: layers, choices and costs.
        evaluate: point -> reward at the end of an episode; None for 0, where the reward is told later.
        sees_errors: whether errors of single layers are observed.
    """

    def __init__(
        self,
        problem: LayerwiseProblem,
        evaluate: Callable[[Point], float] | None = None,
        *,
        sees_errors: bool = True,
    ) -> None:
        self.problem, self.evaluate = problem, evaluate
        count = len(problem.dimensions)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (count,), np.float32)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (len(OBSERVED) + count,), np.float32)
        self.facts = _scaled(problem, sees_errors=sees_errors)
        self._costs = np.array([[problem.costs[each.name][c] for c in problem.choices] for each in problem.layers])
        self.budget = problem.largest
        self._actions: list[Floats32] = []
        self.point: dict[str, float] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats32, dict[str, Any]]:
        """Begin with the first layer; ``options={"budget": COST}`` is what the file may take, by default the most."""
        super().reset(seed=seed)
        self.budget = float((options or {}).get("budget", self.problem.largest))
        self._actions, self.point = [], {}
        return self._observe(0, np.zeros(0), None), {}

    def step(self, action: Floats32) -> tuple[Floats32, float, bool, bool, dict[str, Any]]:
        """Choose for one layer; after the last all are fitted into the budget and evaluated."""
        self._actions.append(np.clip(np.asarray(action, np.float32), -1, 1))
        place, layers = len(self._actions), len(self.problem.layers)
        places = self._nearest(np.stack(self._actions))
        spent = self._costs[np.arange(place), places]
        if place < layers:
            return self._observe(place, spent, self._actions[-1]), 0.0, False, False, {}
        self.point = self.fitted(np.stack(self._actions), self.budget)
        reward = self.evaluate(self.point) if self.evaluate is not None else 0.0
        return self._observe(layers - 1, spent[:-1], self._actions[-1]), reward, True, False, {"point": self.point}

    def fitted(self, actions: Floats32, budget: float) -> dict[str, float]:
        """Return the point of actions ``(layers, dimensions)``, moved by the most with which it costs ``budget``."""
        low, high = -2.0, 2.0
        if self._cost(actions + high) <= budget:
            low = high
        for _ in range(_HALVINGS if low < high else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if self._cost(actions + middle) <= budget else (low, middle)
        return self.problem.point(self._chosen(actions + low))

    def trajectory(self, point: Point, budget: float) -> tuple[Floats32, Floats32]:
        """Return observations ``(layers, ...)`` and actions ``(layers, dimensions)`` of an episode with this point."""
        chosen = self.problem.chosen(point)
        choices: list[LayerChoice] = [chosen[each.name] for each in self.problem.layers]
        actions = np.stack([2 * self.problem.shares(choice) - 1 for choice in choices])
        spent = np.array([self.problem.costs[n.name][c] for n, c in zip(self.problem.layers, choices, strict=True)])
        self.budget = budget
        seen = [self._observe(i, spent[:i], actions[i - 1] if i else None) for i in range(len(choices))]
        return np.stack(seen), actions.astype(np.float32)

    def _cost(self, actions: Floats32) -> float:
        return self.problem.cost_of(self._chosen(actions))

    def _chosen(self, actions: Floats32) -> dict[str, LayerChoice]:
        """Return the choice of each layer that is nearest to its action."""
        names = [each.name for each in self.problem.layers]
        return dict(zip(names, (self.problem.choices[i] for i in self._nearest(actions)), strict=True))

    def _nearest(self, actions: Floats32) -> NDArray[np.int64]:
        """Return the place of the choice of each layer that is nearest to its action."""
        shares = np.clip((actions + 1) / 2, 0, 1)
        far = ((shares[:, None] - self.problem.every_share[None]) ** 2).sum(2)
        found: NDArray[np.int64] = far.argmin(1)
        return found

    def _observe(self, place: int, spent: NDArray[np.float64], before: Floats32 | None) -> Floats32:
        whole = float(self._costs.max(1).sum()) or 1.0
        rest = float(self._costs[place:].max(1).sum()) / whole
        budget = min(max((self.budget - self.problem.fixed) / whole, 0.0), 1.0)
        moved = np.zeros(len(self.problem.dimensions)) if before is None else (before + 1) / 2
        found = np.concatenate([self.facts[place], [float(spent.sum()) / whole, rest, budget], moved])
        seen: Floats32 = np.clip(found, 0, 1).astype(np.float32)
        return seen


def _scaled(problem: LayerwiseProblem, *, sees_errors: bool) -> NDArray[np.float64]:
    """Return what is known of each layer, each column from 0 to 1, ``(layers, 10)``."""
    facts: Sequence[LayerFacts] = problem.layers
    rows = [
        [each.inputs, each.outputs, each.kernel, each.stride, each.positions, each.elements, each.macs]
        for each in facts
    ]
    logs = np.log2(1 + np.array(rows, np.float64))
    place = np.arange(len(facts)) / max(len(facts) - 1, 1)
    flags = [float(each.depthwise) for each in facts]
    return np.column_stack([place, logs / logs.max(0), flags, _error_column(problem, sees_errors)])


def _error_column(problem: LayerwiseProblem, sees: bool) -> NDArray[np.float64]:
    """Return the mean logarithm of each layer's errors an element, the least as 0 and the largest as 1."""
    if not sees or problem.errors is None:
        return np.zeros(len(problem.layers))
    means = np.array(
        [
            np.mean([np.log(error + 1e-9) for error in problem.errors[each.name].values()]) - np.log(each.elements)
            for each in problem.layers
        ]
    )
    span = float(np.ptp(means))
    found: NDArray[np.float64] = (means - means.min()) / (span or 1.0)
    return found
