"""Level: how a weight is rounded, and how much of it is zero; or how much of it is pruned."""

from __future__ import annotations

from typing import NamedTuple

#: The value of a tensor that stays in floating point.
FLOAT = 32


class Level(NamedTuple):
    """What a tensor can be made into.

    Attributes:
        value: bits of its grid, ``FLOAT`` for floating point; or the share of its elements that are pruned.
        rate: the ``rate`` of the stage ``quantize`` for it: codes that take fewer coded bits are preferred.
        sparsity: the share of its elements that become zero before it is rounded.
        scheme: the values that it may have, as ``codebook``; empty for that of the stage.
        granularity: which of its elements share a scale, as ``group:32``; empty for that of the stage.

    Example:
        >>> str(Level(3, 0.01)), str(Level(4, sparsity=0.5)), str(Level(2, scheme="codebook")), str(Level(FLOAT))
        ('3 at 0.01', '4 with 0.5 zero', '2 codebook', 'float')
    """

    value: float
    rate: float = 0.0
    sparsity: float = 0.0
    scheme: str = ""
    granularity: str = ""

    def __str__(self) -> str:
        if self.value == FLOAT:
            return "float"
        rate = f"at {self.rate:g}" if self.rate else ""
        zeros = f"with {self.sparsity:g} zero" if self.sparsity else ""
        return " ".join(filter(None, (f"{self.value:g}", rate, self.scheme, self.granularity, zeros)))
