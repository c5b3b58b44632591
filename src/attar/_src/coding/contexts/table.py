"""The table of the context coder: where neighbours are, and how they predict a symbol (``docs/format.md``, 4.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import ArtifactError

LENGTH, LONGEST_ROW, LONGEST_WIDTH, LONGEST_PERIOD, MOST_BUCKETS = 11, 0xFFFF, 0xFF, 32, 32


@dataclass(frozen=True)
class ContextTable:
    """A table.

    Attributes:
        alphabet: 1 to 256.
        row: distance of the symbol above, such as the inputs of an output channel, 1 to 65,535.
        width: distance of the symbol above in the plane, such as the width of a kernel, 2 to 255.
        period: kernel positions, 1 to 32.
        center: a symbol s stands for the value s - center.
        shift: a bucket holds 2^shift values.
        values: weights in sixteenths, -8 to 7, of the neighbours at distance 1, width, width - 1 and width + 1; their
            sum is the expected value.
        sizes: weights in sixteenths, 0 to 15, of the magnitudes at 1, 2, width, width - 1 and width + 1 together, row,
            of the mean of the last 64, and of that of the column; their sum is the expected magnitude.
    """

    alphabet: int
    row: int
    width: int
    period: int
    center: int
    shift: int
    values: tuple[int, int, int, int]
    sizes: tuple[int, int, int, int, int, int, int]

    @property
    def lowest(self) -> int:
        """The least value, which is minus the largest: the sign of the expected value may turn them round."""
        return -max(self.center, self.alphabet - 1 - self.center, 1)

    @property
    def buckets(self) -> int:
        """Their number, 1 more than twice the largest value over 2^shift: 15 for values of -7 to 7."""
        return (-2 * self.lowest >> self.shift) + 1

    def write(self) -> bytes:
        """Return the table as bytes."""
        numbers = [*(weight % 16 for weight in self.values), *self.sizes, self.shift]
        packed = [low | high << 4 for low, high in zip(numbers[::2], numbers[1::2], strict=True)]
        return bytes([self.row & 0xFF, self.row >> 8, self.width, self.period, self.center, *packed])

    @classmethod
    def read(cls, data: bytes, alphabet: int) -> ContextTable:
        """Invert :meth:`write`.

        Raises:
            ArtifactError: the bytes are not a table for this alphabet.
        """
        if len(data) != LENGTH:
            raise ArtifactError(f"a table of the context coder has {len(data)} bytes; it should have {LENGTH}")
        numbers = [byte >> place & 15 for byte in data[5:] for place in (0, 4)]
        a, b, c, d = ((number ^ 8) - 8 for number in numbers[:4])
        e, f, g, h, i, j, k, shift = numbers[4:]
        row, width, period, center = data[0] | data[1] << 8, *data[2:5]
        table = cls(alphabet, row, width, period, center, shift, (a, b, c, d), (e, f, g, h, i, j, k))
        ranges = row >= 1, width >= 2, 1 <= period <= LONGEST_PERIOD, center < alphabet, shift <= 8
        if not all(ranges) or not 2 <= table.buckets <= MOST_BUCKETS:
            raise ArtifactError(f"a table of the context coder for {alphabet} symbols is malformed: {data.hex()}")
        return table


def fitting_table(histogram: NDArray[np.int64], row: int = 1, width: int = 2, period: int = 1) -> ContextTable:
    """Return a table without weights.

    The middle of the alphabet, or the median if that is far away, stands for zero, and a bucket holds as few values as
    32 buckets allow.
    """
    alphabet = histogram.size
    median = int(np.searchsorted(np.cumsum(histogram), histogram.sum() / 2))
    center = alphabet // 2 if 32 * abs(median - alphabet // 2) <= alphabet else median
    largest = max(center, alphabet - 1 - center, 1)
    shift = next(shift for shift in range(9) if 2 * largest >> shift < MOST_BUCKETS)
    return ContextTable(alphabet, row, width, period, center, shift, (0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0))
