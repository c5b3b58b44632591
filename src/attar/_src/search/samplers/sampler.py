"""Sampler: asked for the next point of a space, told what was measured of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from attar._src.core.spec import Spec
from attar._src.search.figures import Figures
from attar._src.search.goal import Goal
from attar._src.search.space import Point, Space


@dataclass(frozen=True)
class SearchTask:
    """What a sampler works on.

    Attributes:
        space: the holes to fill.
        goal: of the search.
        seed: of everything random.
        trials: the number of points that will be asked for, if it is known.
        folder: that paths in the sampler's options are relative to.
    """

    space: Space
    goal: Goal
    seed: int = 0
    trials: int | None = None
    folder: Path = field(default_factory=Path)


@dataclass(frozen=True)
class ToldTrial:
    """A point that was tried; ``figures`` is None if its trial failed."""

    point: Point
    figures: Figures | None


class Sampler(ABC):
    """Chooses points.

    What it asks for next follows from the task, the number, and what it was told, in this order; nothing else. So a
    search that goes on tells a new sampler what the journal has, and gets the same points.

    Attributes:
        task: what it works on.
        told: number of a trial -> what was tried, in the order of telling.
    """

    def __init__(self, task: SearchTask) -> None:
        self.task = task
        self._told: dict[int, ToldTrial] = {}
        self._begun: dict[int, Point] = {}

    @property
    def told(self) -> Mapping[int, ToldTrial]:
        return self._told

    @property
    def begun(self) -> Mapping[int, Point]:
        """Number of a trial that is not over -> its point, as far as it is known."""
        return self._begun

    @abstractmethod
    def ask(self, number: int) -> Point | None:
        """Return the point of trial ``number``, from 0; None if nothing is left to try before more is told.

        Several trials may be asked for before the first is told. Asking twice for one number without telling between
        gives the same point.
        """

    def begin(self, number: int, point: Point) -> None:
        """Learn that a trial is being run, here or by another process."""
        self._begun[number] = point

    def tell(self, number: int, point: Point, figures: Figures | None) -> None:
        """Learn of a trial: its point, which may be another than the one asked for, and its figures.

        Args:
            number: of the trial.
            point: that was tried.
            figures: what was measured; None if the trial failed.
        """
        self._begun.pop(number, None)
        self._told[number] = ToldTrial(point, figures)


class SamplerSpec(Spec):
    """A sampler in a recipe: its name and options.

    Attributes:
        by_layer: whether it goes layer by layer, so that the task must have layers (``search/layerwise``).
    """

    by_layer: ClassVar[bool] = False

    name: str

    def reads(self) -> tuple[str, ...]:
        """Return the files that the sampler follows from, which must be unchanged for a search to go on."""
        return ()

    def start(self, task: SearchTask) -> Sampler:
        """Return a sampler that knows nothing yet.

        Raises:
            SpecError: the space or the options do not suit it.
        """
        raise NotImplementedError
