"""What a search is for: bounds that a file must hold, and what is made small within them."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attar._src.core.spec import Spec, refused
from attar._src.measure.chance import KEPT_OF_KNOWN
from attar._src.search.figures import Figures

Aim = Literal["bytes", "ms", "drop"]


class Goal(Spec):
    """Bounds and an aim; at least one of them.

    Attributes:
        max_drop: points that a file may lose on the validation examples, as in ``attar.quantize``.
        max_bytes: bytes of a file, at most.
        max_ms: milliseconds of one example on one thread of this machine, at most.
        max_others: per cent that an output beside the main one may lose, of its predictions or its variance; half of it
            by default.
        minimise: what is made small within the bounds; by default the first of drop, bytes, ms that has no bound, and
            bytes if all have one. Without a bound on the drop the smallest file would be one that predicts nothing.
    """

    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    max_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_others: Annotated[float, Field(gt=0, le=100 * (1 - KEPT_OF_KNOWN))] | None = None
    minimise: Aim | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.max_drop is None and self.max_bytes is None and self.max_ms is None and self.minimise is None:
            raise refused(
                "say what a file may lose or take: max_drop=0.5 (points), max_bytes=40_000, max_ms=0.3, or minimise"
            )
        return self

    @property
    def aim(self) -> Aim:
        """What is made small."""
        if self.minimise is not None:
            return self.minimise
        free: tuple[tuple[Aim, object], ...] = (
            ("drop", self.max_drop),
            ("bytes", self.max_bytes),
            ("ms", self.max_ms),
        )
        return next((name for name, bound in free if bound is None), "bytes")

    def excess(self, file: Figures) -> float:
        """Return by how much a file breaks the bounds, summed as shares of them; 0 if it holds all.

        Where no loss was agreed to (``max_drop``), a file that is ruined holds nothing: a bound of 0 is added. No loss
        of the main output agrees to one that ruins another (``is_ruined``): a bound of a half is added, or
        ``max_others``.

        Example:
            >>> from attar._src.search.tried_file import TriedFile
            >>> file = TriedFile(name="8 bits", options={}, file_bytes=150, drop=0.2, unit="points", ms=1.0)
            >>> Goal(max_bytes=100, max_drop=0.5).excess(file)
            0.5
        """
        most_lost = 0.0 if self.max_drop is None and file.ruined else self.max_drop
        most_others = 1 - KEPT_OF_KNOWN if self.max_others is None else self.max_others / 100
        others = None if file.others is None else most_others
        bounds = (
            (file.drop, most_lost),
            (file.others or 0.0, others),
            (file.file_bytes, self.max_bytes),
            (_time(file), self.max_ms),
        )
        # A drop of 0 allowed: every point above it counts as one.
        return sum(max(0.0, (value - most) / (most or 1.0)) for value, most in bounds if most is not None)

    def holds(self, file: Figures) -> bool:
        """Return whether a file holds all bounds."""
        return self.excess(file) == 0

    def value(self, file: Figures) -> float:
        """Return what the aim makes small."""
        return {"bytes": float(file.file_bytes), "ms": _time(file), "drop": file.drop}[self.aim]

    def score(self, file: Figures) -> float:
        """Return one number that is smaller the better a file serves the goal: first the bounds, then the aim.

        Files that hold have ``sign(v) log(1 + |v|)`` of the value, which is below 100; others 100 and their excess.
        """
        excess, value = self.excess(file), self.value(file)
        if excess > 0 or not math.isfinite(value):
            return 100 + min(excess, 1e9)
        return math.copysign(math.log1p(abs(value)), value)

    @property
    def timed(self) -> bool:
        """Whether milliseconds count."""
        return self.max_ms is not None or self.aim == "ms"

    def words(self) -> str:
        """Return the goal in words."""
        bounds = [
            f"a drop of {self.max_drop:g} at most" if self.max_drop is not None else "",
            f"of other outputs {self.max_others:g} % at most" if self.max_others is not None else "",
            f"{self.max_bytes:,} bytes at most" if self.max_bytes is not None else "",
            f"{self.max_ms:g} ms at most" if self.max_ms is not None else "",
        ]
        least = {"bytes": "fewest bytes", "ms": "least time", "drop": "least drop"}[self.aim]
        return ", ".join([*filter(None, bounds), f"{least}"])


def _time(file: Figures) -> float:
    return math.inf if file.ms is None else file.ms
