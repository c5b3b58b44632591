"""Which elements of a parameter are one output channel, when moves lie between the parameter and its products.

A parameter may reach its products cut (``w.chunk(3)``), selected (``w[expert]``), permuted or reshaped. It is stored
whole, with one scale for each output channel of each product. So that no case has to be known here, its elements are
numbered, the moves are done to the numbers, and the output channels that come out are read off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from attar._src.core.scheme import Granularity, PerBlock, PerChannel, PerTensor, Shape
from attar._src.model.operators import operator_of

#: The place of the moved tensor among the arguments of a move.
_HERE = "the moved tensor"
#: Lengths that tell axes apart.
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)


class Filler(NamedTuple):
    """Another tensor, of which only the shape matters."""

    shape: Shape


class Values(NamedTuple):
    """A tensor of indices or a mask."""

    data: bytes
    dtype: torch.dtype
    shape: Shape


@dataclass(frozen=True)
class Move:
    """A call of a move: the operator and its arguments, lists as tuples; whether it only permutes the axes."""

    target: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()
    turns: bool = False

    @classmethod
    def of(cls, node: fx.Node, moved: fx.Node, others: dict[fx.Node, torch.Tensor]) -> Move:
        """Return the call that a node is of the tensor ``moved``; ``others`` are the values of other nodes it reads."""

        def frozen(argument: Any) -> Any:
            if argument is moved:
                return _HERE
            if isinstance(argument, fx.Node):
                value = others.get(argument)
                # A length that varies: one position stands for all.
                return 1 if value is None else _described(value)
            return tuple(map(frozen, argument)) if isinstance(argument, list | tuple) else argument

        kwargs = tuple((key, frozen(each)) for key, each in node.kwargs.items())
        return cls(node.target, frozen(node.args), kwargs, operator_of(node).flips)

    def __call__(self, x: Any) -> Any:
        """Return the move of ``x``."""

        def thawed(argument: Any) -> Any:
            if argument == _HERE:
                return x
            if isinstance(argument, Filler):
                return torch.zeros(argument.shape, dtype=torch.int64)
            if isinstance(argument, Values):
                return torch.frombuffer(bytearray(argument.data), dtype=argument.dtype).reshape(argument.shape)
            return [*map(thawed, argument)] if isinstance(argument, tuple) else argument

        return self.target(*thawed(self.args), **{key: thawed(each) for key, each in self.kwargs})


def _described(value: torch.Tensor) -> Filler | Values:
    if value.is_floating_point() or not value.numel():
        return Filler(tuple(value.shape))
    return Values(value.detach().contiguous().numpy().tobytes(), value.dtype, tuple(value.shape))


@dataclass(frozen=True)
class Reading:
    """How a product reads a parameter.

    Attributes:
        moves: what is done to the parameter before, in order.
        sizes: of one output channel in what the product reads, for each axis: ``(1, 64)`` of a matrix ``(out, 64)``.
    """

    moves: tuple[Move, ...]
    sizes: Shape


@lru_cache(maxsize=1024)
def output_channels(shape: Shape, readings: tuple[Reading, ...]) -> Granularity:
    """Return the granularity that gives each output channel of each product a scale.

    Along an axis where no granularity can tell the channels apart, they share a scale.

    Args:
        shape: of the parameter.
        readings: how it is read.
    """
    if all(move.turns for reading in readings for move in reading.moves):
        # The first product decides.
        return granularity_of(shape, _turned(readings[0]))
    labels = _labels(shape, readings)
    return granularity_of(shape, tuple(_block(labels, axis) for axis in range(len(shape))))


def _turned(reading: Reading) -> Shape:
    """Return the sizes of a reading in the order of the parameter's axes, if the moves only permute these."""
    probe: Any = torch.empty(_PRIMES[: len(reading.sizes)], device="meta")
    for move in reading.moves:
        probe = move(probe)
    return tuple(reading.sizes[probe.shape.index(prime)] for prime in _PRIMES[: len(reading.sizes)])


def granularity_of(shape: Shape, sizes: Shape) -> Granularity:
    """Return the simplest granularity with blocks of these sizes: ``(1, 64)`` of ``(8, 64)`` is one for each row."""
    cut = [axis for axis, (length, size) in enumerate(zip(shape, sizes, strict=True)) if size < length]
    if not cut:
        # The only channel of (1, 64) is that of an axis too.
        alone = [axis for axis, size in enumerate(sizes) if size == 1]
        return PerChannel(axis=alone[-1]) if alone else PerTensor()
    if len(cut) == 1 and sizes[cut[0]] == 1:
        return PerChannel(axis=cut[0])
    return PerBlock(sizes=sizes)


def _labels(shape: Shape, readings: Sequence[Reading]) -> NDArray[np.int64]:
    """Return the number of the output channel of each element, -1 for those that no product reads."""
    count = int(np.prod(shape, dtype=np.int64))
    labels = np.full(count + 1, -1, np.int64)  # the last for zeros that a move filled in
    start = 0
    for reading in readings:
        marks: Any = torch.arange(1, count + 1).reshape(shape)
        for move in reading.moves:
            marks = move(marks)
        read = marks.numpy()
        blocks = [-(-length // size) for length, size in zip(read.shape, reading.sizes, strict=True)]
        channel = np.zeros((1,) * read.ndim, np.int64)
        for axis, (length, size, number) in enumerate(zip(read.shape, reading.sizes, blocks, strict=True)):
            along = np.arange(length) // size
            channel = channel * number + along.reshape([-1 if each == axis else 1 for each in range(read.ndim)])
        labels[read.reshape(-1) - 1] = np.broadcast_to(channel + start, read.shape).reshape(-1)
        start += int(np.prod(blocks, dtype=np.int64))
    return labels[:-1].reshape(shape)


def _block(labels: NDArray[np.int64], axis: int) -> int:
    """Return how many neighbours along an axis are one channel, if all such blocks are different channels; else all."""
    length = int(labels.shape[axis])
    lines = np.moveaxis(labels, axis, -1).reshape(-1, length)
    one, next_one = lines[:, :-1], lines[:, 1:]
    known = (one >= 0) & (next_one >= 0)
    differ = ((one != next_one) & known).any(0).nonzero()[0] + 1
    equal = ((one == next_one) & known).any(0).nonzero()[0] + 1
    if not differ.size:
        return length
    size = gcd(length, *map(int, differ))
    if (equal % size == 0).any():
        return length
    # Numbers of their own for what no product reads.
    heads = np.where(lines >= 0, lines, -1 - np.arange(length))[:, ::size]
    heads = np.sort(heads, axis=1)
    return length if (heads[:, 1:] == heads[:, :-1]).any() else size
