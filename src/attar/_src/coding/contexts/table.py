"""The table of the context coder: where neighbours are, and how they predict a symbol (``docs/format.md``, 4.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.entropy import entropy_bits
from attar._src.core.errors import ArtifactError

LENGTH, LONGEST_ROW, LONGEST_WIDTH, LONGEST_PERIOD, MOST_BUCKETS = 11, 0xFFFF, 0xFF, 32, 33
_APART = 8  # what is added to the shift in the bytes of a table whose zero is apart
_LEARNING = 8  # bits that the frequency of a bucket takes to learn, about


@dataclass(frozen=True)
class ContextTable:
    """A table.

    Attributes:
        alphabet: 1 to 256.
        row: distance of the symbol above, such as the inputs of an output channel, 1 to 65,535.
        width: distance of the symbol above in the plane, such as the width of a kernel, 2 to 255.
        period: kernel positions, 1 to 32.
        center: a symbol s stands for the value s - center.
        shift: a bucket holds 2^shift values, 0 to 8.
        apart: zero has a bucket of its own, the last, and shift is 1 to 7: for weights of many bits most of which are
            pruned, as values that share a bucket take ``shift`` bits each.
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
    apart: bool = False

    @property
    def lowest(self) -> int:
        """The least value, which is minus the largest: the sign of the expected value may turn them round.

        With zero apart the values on either side of it fill whole buckets.
        """
        largest = max(self.center, self.alphabet - 1 - self.center, 1)
        return -(-(-largest >> self.shift) << self.shift) if self.apart else -largest

    @property
    def buckets(self) -> int:
        """Their number, 1 more than twice the largest value over 2^shift: 15 for values of -7 to 7."""
        return (-2 * self.lowest >> self.shift) + 1

    def place(self, value: int) -> tuple[int, int, int]:
        """Return the bucket of a value, its number in the bucket, and the bits of that number."""
        if self.apart and not value:
            return self.buckets - 1, 0, 0
        place = value - self.lowest - (self.apart and value > 0)
        return place >> self.shift, place & (1 << self.shift) - 1, self.shift

    def value(self, bucket: int, number: int) -> int:
        """Invert :meth:`place`."""
        if self.apart and bucket == self.buckets - 1:
            return 0
        value = (bucket << self.shift) + number + self.lowest
        return value + (self.apart and value >= 0)

    def write(self) -> bytes:
        """Return the table as bytes."""
        numbers = [*(weight % 16 for weight in self.values), *self.sizes, self.shift + _APART * self.apart]
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
        apart = shift > _APART
        shift -= _APART * apart
        table = cls(alphabet, row, width, period, center, shift, (a, b, c, d), (e, f, g, h, i, j, k), apart)
        ranges = row >= 1, width >= 2, 1 <= period <= LONGEST_PERIOD, center < alphabet
        if not all(ranges) or not 2 <= table.buckets <= MOST_BUCKETS:
            raise ArtifactError(f"a table of the context coder for {alphabet} symbols is malformed: {data.hex()}")
        return table


def fitting_table(histogram: NDArray[np.int64], row: int = 1, width: int = 2, period: int = 1) -> ContextTable:
    """Return a table without weights.

    The middle of the alphabet, or the median if that is far away, stands for zero. A bucket holds as few values as 33
    buckets allow; if that is more than one, it holds as many as cost least, and the most frequent symbol has a bucket
    of its own if that saves 1 %.
    """
    alphabet = histogram.size
    median = int(np.searchsorted(np.cumsum(histogram), histogram.sum() / 2))
    center = alphabet // 2 if 32 * abs(median - alphabet // 2) <= alphabet else median
    table = _finest(ContextTable(alphabet, row, width, period, center, 0, (0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0)))
    if not table.shift:
        return table
    apart = _finest(replace(table, center=int(histogram.argmax()), shift=1, apart=True))
    (cost, table), (least, apart) = _cheapest(histogram, table), _cheapest(histogram, apart)
    return apart if least < 0.99 * cost else table


def _finest(table: ContextTable) -> ContextTable:
    """Return the table with the least shift, from its own up, that has few enough buckets."""
    while table.buckets > MOST_BUCKETS:
        table = replace(table, shift=table.shift + 1)
    return table


def _cheapest(histogram: NDArray[np.int64], finest: ContextTable) -> tuple[float, ContextTable]:
    """Return the bits of all symbols if contexts tell nothing, and the one of three shifts that needs least."""
    tables = [replace(finest, shift=finest.shift + more) for more in range(3)]
    return min(((_bits(histogram, table), table) for table in tables), key=lambda pair: pair[0])


def _bits(histogram: NDArray[np.int64], table: ContextTable) -> float:
    places = np.array([table.place(symbol - table.center) for symbol in range(histogram.size)])
    buckets = np.bincount(places[:, 0], weights=histogram, minlength=table.buckets).astype(np.int64)
    coded = entropy_bits(buckets) * float(histogram.sum()) + float(histogram @ places[:, 2])
    return coded + _LEARNING * table.buckets
