"""Scheduled: a number, or one that changes over a stage."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from attar._src.core.spec import Spec


class Schedule(Spec):
    """A number that goes from one value to another between two points of a stage, and stays there.

    Attributes:
        start: the value until ``begin``.
        stop: the value from ``end`` on.
        shape: ``linear``, ``cosine`` (slow, fast, slow) or ``cubic`` (fast, then ever slower).
        begin, end: shares of the stage, 0 to 1.
    """

    start: float
    stop: float
    shape: Literal["linear", "cosine", "cubic"] = "linear"
    begin: Annotated[float, Field(ge=0, le=1)] = 0.0
    end: Annotated[float, Field(ge=0, le=1)] = 1.0

    def at(self, progress: float) -> float:
        """Return the value where ``progress`` (0 to 1) of the stage is done.

        ``start + (stop - start) f(u)`` with ``u = (progress - begin) / (end - begin)`` clipped to 0..1 and f(u) = u,
        ``(1 - cos(pi u)) / 2`` or ``1 - (1 - u)^3`` (Zhu and Gupta 2017, "To prune, or not to prune", section 3).
        """
        u = 1.0 if progress >= self.end else max(0.0, (progress - self.begin) / max(self.end - self.begin, 1e-12))
        shaped = {"linear": u, "cosine": (1 - math.cos(math.pi * u)) / 2, "cubic": 1 - (1 - u) ** 3}[self.shape]
        return self.start + (self.stop - self.start) * shaped


Scheduled = float | Schedule


def value_at(value: Scheduled, progress: float) -> float:
    """Return a scheduled number where ``progress`` of the stage is done."""
    return value.at(progress) if isinstance(value, Schedule) else value
