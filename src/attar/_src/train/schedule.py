"""Schedules: numbers that change over a stage."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from attar._src.core.spec import Spec


class Schedule(Spec):
    """A number that is ``start`` until ``begin`` and ``stop`` from ``end`` on, both shares of a stage.

    In between it is ``linear``, ``cosine`` (slow, fast, slow) or ``cubic`` (fast, then slower).

    Example:
        >>> [Schedule(start=8, stop=4, shape="cubic").at(progress) for progress in (0, 0.5, 1)]
        [8.0, 4.5, 4.0]
    """

    start: float
    stop: float
    shape: Literal["linear", "cosine", "cubic"] = "linear"
    begin: Annotated[float, Field(ge=0, le=1)] = 0.0
    end: Annotated[float, Field(ge=0, le=1)] = 1.0

    def at(self, progress: float) -> float:
        """Return the value at ``progress``, the completed share of the stage, 0 to 1.

        ``start + (stop - start) f(u)`` with ``u = (progress - begin) / (end - begin)`` clipped to 0..1 and f(u) = u,
        ``(1 - cos(pi u)) / 2`` or ``1 - (1 - u)^3`` (Zhu and Gupta 2017, "To prune, or not to prune", section 3).
        """
        u = 1.0 if progress >= self.end else max(0.0, (progress - self.begin) / max(self.end - self.begin, 1e-12))
        shaped = {"linear": u, "cosine": cosine_rise(u), "cubic": 1 - (1 - u) ** 3}[self.shape]
        return self.start + (self.stop - self.start) * shaped


def cosine_rise(u: float) -> float:
    """Return ``(1 - cos(pi u)) / 2``, which rises from 0 to 1."""
    return (1 - math.cos(math.pi * u)) / 2


Scheduled = float | Schedule


def value_at(value: Scheduled, progress: float) -> float:
    """Return the value of a number or schedule at ``progress``, 0 to 1."""
    return value.at(progress) if isinstance(value, Schedule) else value
