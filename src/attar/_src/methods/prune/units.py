"""Units of pruning: single weights, N:M patterns and blocks, on weights as rows that multiply vectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Annotated

import torch
from pydantic import AfterValidator

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerChannel, Shape
from attar._src.core.spec import refusing_at
from attar._src.model.weights import Weight, Window


@dataclass(frozen=True)
class WeightRows:
    """How a weight is cut into rows ``(groups, rows, channels x positions)``, a row for each output.

    A convolution ``(8, 4, 3, 3)`` in one group has 8 rows of 4 channels at 9 positions of the kernel; a linear layer
    one position.

    Attributes:
        shape: of the weight.
        window: of the layer; None of what no window reads (tables, transposed convolutions).
        axis: of the output channels, where there is no window.
    """

    shape: Shape
    window: Window | None = None
    axis: int = 0

    @classmethod
    def of(cls, shape: Shape, weight: Weight, window: Window | None) -> WeightRows:
        """Return the rows of a weight of a graph."""
        of = weight.channels
        return cls(shape, window, of.axis if isinstance(of, PerChannel) else 0)

    @property
    def positions(self) -> int:
        """The positions of a kernel, which are the fastest in a row."""
        if self.window is not None:
            return prod(self.window.kernel)
        others = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        return prod(others[1:])

    def rows(self, value: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the weight's shape as rows."""
        if self.window is None:
            return value.movedim(self.axis, 0).reshape(1, self.shape[self.axis], -1)
        turned = value.swapaxes(-1, -2) if self.window.turned else value
        return turned.reshape(self.window.groups, -1, self.window.length)

    def weight(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the tensor of the weight's shape with these rows."""
        if self.window is None:
            moved = [self.shape[self.axis], *(size for axis, size in enumerate(self.shape) if axis != self.axis)]
            return rows.reshape(moved).movedim(0, self.axis).contiguous()
        if not self.window.turned:
            return rows.reshape(self.shape)
        turned = rows.reshape(*self.shape[:-2], self.shape[-1], self.shape[-2])
        return turned.swapaxes(-1, -2).contiguous()


@dataclass(frozen=True)
class PruningUnit:
    """What is pruned together.

    | text | meaning |
    |---|---|
    | ``weight`` | single weights |
    | ``2:4`` | of 4 neighbouring input channels (at the same place of a kernel) 2 remain, in every output channel |
    | ``4x1`` | blocks of 4 output channels and 1 input channel, at the same place of a kernel |

    Units along an edge that is no multiple of a block's are smaller, and are scored by the mean of their elements.

    Attributes:
        text: as it is written.
        rows, columns: of a block.
        keep, of: N and M; 0 if it is no such pattern.
    """

    text: str
    rows: int = 1
    columns: int = 1
    keep: int = 0
    of: int = 0

    @classmethod
    def parse(cls, text: str) -> PruningUnit:
        """Return the unit.

        Raises:
            SpecError: it is written otherwise, or keeps none or all.
        """
        if text == "weight":
            return cls(text)
        if pattern := re.fullmatch(r"(\d+):(\d+)", text):
            keep, of = map(int, pattern.groups())
            if 0 < keep < of:
                return cls(text, keep=keep, of=of)
            raise SpecError(f"unit {text!r}: of M weights N remain, 0 < N < M; write 2:4")
        if (block := re.fullmatch(r"(\d+)x(\d+)", text)) and "0" not in block.groups():
            return cls(text, *map(int, block.groups()))
        raise SpecError(f"unit {text!r}: write weight, N:M such as 2:4, or a block ROWSxCOLUMNS such as 4x1")

    @property
    def share(self) -> float | None:
        """The share that an N:M pattern prunes; None of other units."""
        return 1 - self.keep / self.of if self.of else None

    def misfit(self, rows: WeightRows) -> str:
        """Return why a weight cannot have the pattern; empty if it can."""
        if not self.of:
            return ""
        _, _, channels, _ = self._sizes(rows)
        return f"its {channels} input channels are no multiple of {self.of}" if channels % self.of else ""

    def count(self, rows: WeightRows) -> int:
        """Return the number of units of a weight."""
        return prod(self._grid(rows))

    def wide(self, rows: WeightRows) -> int:
        """Return the number of units beside each other in a row of units."""
        _, _, channels, positions = self._grid(rows)
        return channels * positions

    def scores(
        self, elements: torch.Tensor, rows: WeightRows, of_units: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return the score of each unit, ``(groups, rows, channels, positions)`` of units.

        Args:
            elements: scores of the elements, ``(groups, rows, columns)``.
            rows: of the weight.
            of_units: makes scores of sums.
        """
        grid = self._grid(rows)
        if self.rows == self.columns == 1:
            return of_units(elements).reshape(grid)
        labels = self.labels(rows).reshape(-1).to(elements.device)
        sums = elements.new_zeros(prod(grid)).index_add(0, labels, elements.reshape(-1)).reshape(grid)
        return of_units(sums) / self.sizes(rows).to(elements.device)

    def sizes(self, rows: WeightRows) -> torch.Tensor:
        """Return the number of elements of each unit, ``(groups, rows, channels, positions)`` of units."""
        grid = self._grid(rows)
        return torch.bincount(self.labels(rows).reshape(-1), minlength=prod(grid)).reshape(grid)

    def lowest(self, scores: torch.Tensor, count: int, *, each_row: bool = False) -> torch.Tensor:
        """Return which units are pruned, bool in the shape of ``scores``: the lowest, the first of equal ones.

        Args:
            scores: of units.
            count: how many; of an N:M pattern as many of each M as come next to the share.
            each_row: whether each row of units loses the same number.
        """
        if self.of:
            groups, rows, channels, positions = scores.shape
            cut = scores.reshape(groups, rows, channels // self.of, self.of, positions)
            dropped = min(round(count / max(scores.numel(), 1) * self.of), self.of - self.keep)
            return _lowest_of_each(cut.movedim(3, -1), dropped).movedim(-1, 3).reshape(scores.shape)
        if each_row:
            per_row = round(count / max(scores.shape[0] * scores.shape[1], 1))
            return _lowest_of_each(scores.flatten(2), per_row).reshape(scores.shape)
        return lowest(scores.reshape(-1), count).reshape(scores.shape)

    def spread(self, units: torch.Tensor, rows: WeightRows) -> torch.Tensor:
        """Return a figure of each unit for each of its elements: ``(groups, rows, columns)``."""
        if self.rows == self.columns == 1:
            return units.flatten(2)
        return units.reshape(-1)[self.labels(rows).to(units.device)]

    def labels(self, rows: WeightRows) -> torch.Tensor:
        """Return the number of each element's unit, int64 ``(groups, rows, columns)``."""
        groups, count, channels, positions = self._sizes(rows)
        grid = self._grid(rows)
        group = torch.arange(groups)[:, None, None]
        row = (torch.arange(count) // self.rows)[None, :, None]
        column = torch.arange(channels * positions)
        channel, position = column // positions // self.columns, column % positions
        return ((group * grid[1] + row) * grid[2] + channel) * grid[3] + position

    def _sizes(self, rows: WeightRows) -> tuple[int, int, int, int]:
        size, positions = prod(rows.shape), max(rows.positions, 1)
        if rows.window is not None:
            groups, length = rows.window.groups, rows.window.length
        else:
            groups, length = 1, size // max(rows.shape[rows.axis], 1)
        return groups, size // max(groups * length, 1), length // positions, positions

    def _grid(self, rows: WeightRows) -> tuple[int, int, int, int]:
        groups, count, channels, positions = self._sizes(rows)
        return groups, -(-count // self.rows), -(-channels // self.columns), positions


def _check_unit(text: str) -> str:
    with refusing_at():
        PruningUnit.parse(text)
    return text


#: A unit as it is written in recipes.
UnitText = Annotated[str, AfterValidator(_check_unit)]


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a mask of the ``count`` lowest of scores ``(n,)``; the first of equal ones."""
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    last = scores.kthvalue(min(count, len(scores))).values
    below, level = scores < last, scores == last
    return below | (level & (level.cumsum(0) <= count - below.sum()))


def _lowest_of_each(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a mask of the ``count`` lowest along the last axis; the first of equal ones."""
    order = torch.sort(scores, dim=-1, stable=True).indices
    places = torch.empty_like(order)
    places.scatter_(-1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order))
    found: torch.Tensor = places < count
    return found
