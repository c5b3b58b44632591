"""A user's own sampler."""

from __future__ import annotations

from typing import Any

from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.search.samplers.sampler import Sampler, SamplerSpec, SearchTask


class CustomSampler(SamplerSpec):
    """A user's own sampler: ``{name: samplers.py:Halton, arguments: {base: 3}}``, a subclass of ``Sampler``.

    Attributes:
        arguments: keyword arguments of the class, after the task.
    """

    arguments: dict[str, Any] = {}

    def reads(self) -> tuple[str, ...]:
        file = self.name.rpartition(":")[0]
        return (file,) if file.endswith(".py") else ()

    def start(self, task: SearchTask) -> Sampler:
        found = load_object(self.name)
        if not isinstance(found, type) or not issubclass(found, Sampler):
            raise SpecError(f"{self.name} is not a sampler; give a subclass of attar.extend.Sampler")
        return found(task, **self.arguments)
