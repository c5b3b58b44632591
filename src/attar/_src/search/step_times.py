"""What a step of a search will take, of what steps before took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from attar._src.core.errors import SpecError
from attar._src.report.wording import clock
from attar._src.search.plan import UNTOUCHED, Cost
from attar._src.search.tried_file import TriedFile

#: What a kind of work takes, in times of rounding, before one was timed.
_FIRST: Mapping[Cost, float] = {"round": 1.0, "see": 2.0, "levels": 8.0, "size": 2.0, "train": 8.0}
#: Times that what was timed may take the next time.
_SPARE = 1.2
#: Seconds from which it is told that a step has begun.
_TOLD = 2.0
#: What the first file with bits of its own for each layer takes so long for.
SOLVING = "solutions of all layers at all levels first, which the sizes after it share"


def seconds_allowed(minutes: Any) -> float | None:
    """Return the seconds of a limit in minutes; None without one.

    Raises:
        SpecError: it is no time.
    """
    if minutes is None:
        return None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes < math.inf:
        raise SpecError(f"minutes={minutes!r}: give a number above 0, or none for as long as it pays")
    return 60 * float(minutes)


def begun_words(name: str, seconds: float, why: str = "") -> str:
    """Return what is said before a step: ``40,000 bytes: about 1:10``; empty of one that is over in a moment.

    Args:
        name: of the step.
        seconds: that it may take; of the first it is not known.
        why: what takes so long.
    """
    if name == UNTOUCHED:
        return f"{name}: packed, verified and judged; all others are compared with it"
    return f"{name}: about {clock(seconds)}{f' ({why})' if why else ''}" if seconds >= _TOLD else ""


@dataclass
class StepTimes:
    """The most that each kind of work took."""

    _longest: dict[Cost, float] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Sequence[TriedFile]) -> Self:
        """Return the times of files that were made before."""
        found, sized = cls(), set[str]()
        for each in files:
            if each.way:
                continue
            own, form = each.options, str(each.options.get("activations"))
            size: Cost = "size" if form in sized else "levels"
            if "max_bytes" in own:
                sized.add(form)
                found.add("train" if "reconstruct" in own else size, each.seconds)
            else:
                found.add("see" if "scales" in own else "round", each.seconds)
        return found

    def add(self, cost: Cost, seconds: float) -> None:
        """Count a step, whether it made a file or none."""
        self._longest[cost] = max(self._longest.get(cost, 0.0), seconds)

    def expected(self, cost: Cost, *, solved: bool) -> float:
        """Return the seconds that a step may take; 0 before the first.

        Args:
            cost: of the step.
            solved: whether the solutions of a size are there, so that no levels are made first.
        """
        if cost in ("size", "train") and not solved:
            return self._one("levels") + (self._one(cost) if cost == "train" else 0.0)
        # A size that is trained is made before.
        return max(self._one(cost), self._one("size") if cost == "train" else 0.0)

    def _one(self, cost: Cost) -> float:
        if cost in self._longest:
            return _SPARE * self._longest[cost]
        return _FIRST[cost] * self._longest.get("round", 0.0)
