"""The registry of samplers, and the type of a sampler in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar._src.core.registry import Registry
from attar._src.core.spec import spec_choice
from attar._src.search.samplers.custom import CustomSampler
from attar._src.search.samplers.greedy import Greedy
from attar._src.search.samplers.integer_program import IntegerProgram
from attar._src.search.samplers.learned.specs import Ddpg, Sac
from attar._src.search.samplers.nsga2 import Nsga2
from attar._src.search.samplers.random import RandomPoints
from attar._src.search.samplers.sampler import SamplerSpec
from attar._src.search.samplers.tpe import Tpe

SAMPLERS: Registry[type[SamplerSpec]] = Registry("sampler", RandomPoints, Tpe, Nsga2, Greedy, IntegerProgram, Ddpg, Sac)

if TYPE_CHECKING:
    SamplerChoice = SamplerSpec
else:
    #: The type of a field that holds a sampler, chosen by its ``name``.
    SamplerChoice = spec_choice(SAMPLERS, CustomSampler)
