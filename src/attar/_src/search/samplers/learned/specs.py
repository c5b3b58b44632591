"""Samplers whose policy is learned by reinforcement: their options."""

from __future__ import annotations

import importlib
from os.path import normpath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from attar._src.core.errors import AttarError
from attar._src.core.spec import refused
from attar._src.search.layerwise.problem import LayerwiseTask
from attar._src.search.samplers.sampler import Sampler, SamplerSpec, SearchTask

#: The module that needs stable-baselines3, which takes seconds to load.
_AGENT = "attar._src.search.samplers.learned.agent"


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

    by_layer: ClassVar[bool] = True

    warm_up: Annotated[int, Field(ge=0)] = 20
    updates: Annotated[int, Field(ge=0)] = 60
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    sees_errors: bool = True
    load: str | None = None
    save: str | None = None

    #: Whether the policy draws its actions itself.
    draws: ClassVar[bool] = False

    @model_validator(mode="after")
    def _saves_elsewhere(self) -> Self:
        if self.load is not None and self.save is not None and normpath(self.load) == normpath(self.save):
            raise refused(
                f"{self.save} is the policy to begin with; save to another file, so that a search that goes on begins "
                "with the same",
                "save",
            )
        return self

    def reads(self) -> tuple[str, ...]:
        return () if self.load is None else (self.load,)

    def start(self, task: SearchTask) -> Sampler:
        problem = LayerwiseTask.needed(task, self.name)
        try:
            module: Any = importlib.import_module(_AGENT)
        except ModuleNotFoundError as error:
            raise AttarError(
                f"sampler {self.name!r} needs more packages ({error}): pip install 'attar[search]'"
            ) from error
        found: Sampler = module.Agent(task, problem, self)
        return found


class Ddpg(LearnedSampler):
    """``ddpg``: deep deterministic policy gradients, as in AMC and HAQ (Lillicrap et al. 2016, arXiv 1509.02971)."""

    name: Literal["ddpg"] = "ddpg"


class Sac(LearnedSampler):
    """``sac``: soft actor-critic, a policy that draws, as widely as pays (Haarnoja et al. 2018, arXiv 1812.05905)."""

    name: Literal["sac"] = "sac"
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    draws: ClassVar[bool] = True
