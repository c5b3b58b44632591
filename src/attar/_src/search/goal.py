"""What a search is for: bounds that a file must hold, and what is made small within them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attar._src.core.spec import Spec, refused
from attar._src.search.tried_file import TriedFile

Aim = Literal["bytes", "ms", "drop"]


class Goal(Spec):
    """Bounds and an aim; at least one of them.

    Attributes:
        max_drop: points that a file may lose on the validation examples, as in ``attar.quantize``.
        max_bytes: bytes of a file, at most.
        max_ms: milliseconds of one example on one thread of this machine, at most.
        minimise: what is made small within the bounds; by default the first of bytes, drop, ms that has no bound, and
            bytes if all have one.
    """

    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    max_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
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
            ("bytes", self.max_bytes),
            ("drop", self.max_drop),
            ("ms", self.max_ms),
        )
        return next((name for name, bound in free if bound is None), "bytes")

    def excess(self, file: TriedFile) -> float:
        """Return by how much a file breaks the bounds, summed as shares of them; 0 if it holds all.

        Example:
            >>> from attar._src.search.tried_file import TriedFile
            >>> file = TriedFile(name="8 bits", options={}, file_bytes=150, drop=0.2, unit="points", ms=1.0)
            >>> Goal(max_bytes=100, max_drop=0.5).excess(file)
            0.5
        """
        bounds = ((file.drop, self.max_drop), (file.file_bytes, self.max_bytes), (file.ms, self.max_ms))
        # A drop of 0 allowed: every point above it counts as one.
        return sum(max(0.0, (value - most) / (most or 1.0)) for value, most in bounds if most is not None)

    def holds(self, file: TriedFile) -> bool:
        """Return whether a file holds all bounds."""
        return self.excess(file) == 0

    def value(self, file: TriedFile) -> float:
        """Return what the aim makes small."""
        return {"bytes": float(file.file_bytes), "ms": file.ms, "drop": file.drop}[self.aim]

    def words(self) -> str:
        """Return the goal in words."""
        bounds = [
            f"a drop of {self.max_drop:g} at most" if self.max_drop is not None else "",
            f"{self.max_bytes:,} bytes at most" if self.max_bytes is not None else "",
            f"{self.max_ms:g} ms at most" if self.max_ms is not None else "",
        ]
        least = {"bytes": "fewest bytes", "ms": "least time", "drop": "least drop"}[self.aim]
        return ", ".join([*filter(None, bounds), f"{least}"])
