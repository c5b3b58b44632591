"""The size that a file may have: bits per weight without its graph, or bytes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from attar._src.core.errors import SpecError


class BudgetError(SpecError):
    """A budget of which nothing is left for codes.

    Args:
        facts: what was asked, and what it takes, in words that no recipe is needed for.
        fix: what to change in a recipe.
    """

    def __init__(self, facts: str, fix: str) -> None:
        super().__init__(f"{facts}; {fix}")
        self.facts = facts


@dataclass(frozen=True)
class SizeBudget:
    """One of two bounds on a file.

    Attributes:
        bits_per_weight: of the file without its graph, as in reports.
        max_bytes: of the whole file.

    Example:
        >>> SizeBudget(bits_per_weight=2.0).without_graph(parameters=1000, graph_bytes=70)
        250.0
        >>> SizeBudget(max_bytes=320).without_graph(parameters=1000, graph_bytes=70)
        250.0
    """

    bits_per_weight: float | None = None
    max_bytes: int | None = None

    @classmethod
    def of(cls, bits_per_weight: float | None, max_bytes: int | None) -> Self | None:
        """Return the budget that is given, None if neither is."""
        return None if bits_per_weight is None and max_bytes is None else cls(bits_per_weight, max_bytes)

    def without_graph(self, parameters: int, graph_bytes: int) -> float:
        """Return the bytes that are left for everything but the graph."""
        if self.max_bytes is not None:
            return float(self.max_bytes - graph_bytes)
        assert self.bits_per_weight is not None
        return self.bits_per_weight * parameters / 8

    def excess(self, bits_per_weight: float, file_bytes: int) -> str:
        """Return by what a file breaks the budget, in words; empty if it holds."""
        if self.max_bytes is not None:
            return f"{file_bytes:,} bytes" if file_bytes > self.max_bytes else ""
        assert self.bits_per_weight is not None
        return f"{bits_per_weight:.4g} bits per weight" if bits_per_weight > self.bits_per_weight else ""

    def words(self) -> str:
        """Return the budget in words."""
        if self.max_bytes is not None:
            return f"{self.max_bytes:,} bytes"
        return f"{self.bits_per_weight:g} bits per weight"
