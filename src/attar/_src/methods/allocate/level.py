"""Level: how much of a weight is zero, and at which bits and rate the rest is rounded; or how much of it is pruned."""

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

    Example:
        >>> str(Level(4)), str(Level(3, 0.01)), str(Level(FLOAT)), str(Level(4, sparsity=0.5))
        ('4', '3 at 0.01', 'float', '4 with 0.5 zero')
    """

    value: float
    rate: float = 0.0
    sparsity: float = 0.0

    def __str__(self) -> str:
        if self.value == FLOAT:
            return "float"
        rate = f" at {self.rate:g}" if self.rate else ""
        return f"{self.value:g}{rate}" + (f" with {self.sparsity:g} zero" if self.sparsity else "")
