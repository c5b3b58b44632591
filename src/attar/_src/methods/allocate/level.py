"""Level: at which bits, and at which rate, a weight is rounded; or how much of it is pruned."""

from __future__ import annotations

from typing import NamedTuple

#: The value of a tensor that stays in floating point.
FLOAT = 32


class Level(NamedTuple):
    """What a tensor can be made into.

    Attributes:
        value: bits of its grid, ``FLOAT`` for floating point; or the share of its elements that are pruned.
        rate: the ``rate`` of the stage ``quantize`` for it: codes that take fewer coded bits are preferred.

    Example:
        >>> str(Level(4)), str(Level(3, 0.01)), str(Level(FLOAT))
        ('4', '3 at 0.01', 'float')
    """

    value: float
    rate: float = 0.0

    def __str__(self) -> str:
        if self.value == FLOAT:
            return "float"
        return f"{self.value:g} at {self.rate:g}" if self.rate else f"{self.value:g}"
