"""Files of one module that are trained: each is a recipe, run in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar._src.core.errors import SpecError
from attar._src.search.comparison.compared_ways import COMPARED_WAYS
from attar._src.search.comparison.tuned import TUNED_OPTIONS
from attar._src.search.training.trainer import Trainer
from attar._src.search.training.way import Stages

#: Time over what a training is expected to take, which must be left for it.
_SPARE = 1.2


@dataclass(frozen=True)
class TrainedFiles:
    """Trains files by a way and the value of one option.

    Attributes:
        trainer: runs recipes.
    """

    trainer: Trainer

    def stages(self, options: Mapping[str, Any]) -> Stages:
        """Return the stages for ``way`` and one other option.

        Raises:
            SpecError: the way does not apply to this module and value.
        """
        ((name, value),) = ((name, each) for name, each in options.items() if name in TUNED_OPTIONS)
        target = self.trainer.target({"max_bytes": value} if name == "max_bytes" else {})
        found = COMPARED_WAYS[options["way"]](target, value)
        if found is None:
            raise SpecError(f"{options['way']!r} has nothing to do here with {name}={value:g}")
        return found

    def save(self, options: Mapping[str, Any], name: str, path: Path) -> tuple[dict[str, Any], int]:
        """Train a file and write it.

        Args:
            options: as of :meth:`stages`.
            name: of the folder of the run.
            path: of the file.

        Returns:
            The options with the recipe that makes the file again, and the number of examples that were trained on.

        Raises:
            AttarError: as :func:`attar.run`.
        """
        stages = self.stages(options)
        recipe = self.trainer.run(stages, name, path)
        return {**options, "recipe": recipe}, _epochs(stages) * self.trainer.facts.examples

    def expected(self, options: Mapping[str, Any]) -> float:
        """Return the seconds that a training may take, by the time of one step; 0 if the way does not apply."""
        try:
            return _SPARE * self.trainer.plain_seconds(self.stages(options))
        except SpecError:
            return 0.0


def _epochs(stages: Stages) -> int:
    return sum(int(each.get("epochs", 0)) for each in stages)
