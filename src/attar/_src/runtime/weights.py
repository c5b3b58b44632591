"""The weights of a graph: each binding as float values or, if its grid allows it, as int8 codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.artifact.bindings import Whole, parts_of, resolve, whole
from attar._src.artifact.manifest import Binding
from attar._src.artifact.reader import Artifact
from attar._src.core.scheme import Granularity, PerBlock, PerBucket, PerChannel, PerGroup, Shape
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized
from attar._src.runtime.moves import MOVES, moved

_MOST_MOVES = 32


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """A weight for integer kernels: ``dense = scale * codes``.

    ``scale`` has the shape ``(codes.shape[axis],)``, or ``(1,)`` with ``axis`` None.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int | None


class Int8Rows(NamedTuple):
    """Weights ``(..., rows, in)`` for integer kernels: ``dense = scale[..., None] * codes``."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def direction(self, place: int) -> Int8Weight:
        """Return the weight ``(rows, in)`` of one index of the first of three axes."""
        return Int8Weight(self.codes[place], self.scale[place], 0)


class ElementGrid(NamedTuple):
    """A tensor by its elements: ``scale[which] (codes - zero_point[which])``.

    Codes and zero points are unsigned; ``which`` has the shape of the codes, or 1 along axes on which nothing depends.
    """

    codes: NDArray[np.uint8]
    which: NDArray[np.int32]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8]


class Weights:
    """The bound initializers of a graph, decoded on demand on up to ``threads`` cores.

    Attributes:
        shapes: the shape of every initializer.
    """

    def __init__(self, artifact: Artifact, graph: str, *, threads: int = 1) -> None:
        self._bindings: Mapping[str, Binding] = {b.to: b for b in artifact.graph_record(graph).bindings}
        self.shapes: dict[str, Shape] = {name: bound.shape for name, bound in artifact.bound(graph).items()}
        #: Output of a node that moves an initializer -> the node, its first input, the others, and its place.
        self._moved: dict[str, tuple[onnx.NodeProto, str, Sequence[NDArray[Any]], int]] = {}
        self._tensor = cache(partial(artifact.tensor, threads=threads))

    def __contains__(self, name: object) -> bool:
        return name in self._bindings or name in self._moved

    def move(self, node: onnx.NodeProto, constant: Callable[[str], NDArray[Any] | None]) -> bool:
        """Take over a node that only moves a compressed initializer; return whether its outputs are initializers now.

        ``constant`` returns the value of an initializer of the graph, None for other names.
        """
        source, *others = node.input
        if node.op_type not in MOVES or source not in self or not self.compressed(source):
            return False
        if self._steps(source) >= _MOST_MOVES:
            return False  # each use repeats all moves; after so many ONNX Runtime does the rest
        given = [self.array(name) if name in self else constant(name) for name in others if name]
        if any(array is None for array in given):
            return False
        known = [array for array in given if array is not None]
        # An array of one byte, broadcast to the shape, has the moves' shapes at no cost.
        probe = np.broadcast_to(np.zeros((), np.int8), self.shapes[source])
        try:
            parts = moved(node, probe, known)
        except (ValueError, IndexError, TypeError, OverflowError):
            # What the graph asks for cannot be: ONNX Runtime says so.
            return False
        if len(parts) != len(node.output):
            return False
        for place, (name, array) in enumerate(zip(node.output, parts, strict=True)):
            self._moved[name] = (node, source, known, place)
            self.shapes[name] = array.shape
        return True

    def parts(self, name: str) -> tuple[str, ...]:
        """Return the names of the stored tensors of an initializer."""
        return tuple(part.tensor for part in parts_of(self._bindings[self._root(name)]))

    def compressed(self, name: str) -> tuple[str, ...]:
        """Return the stored tensors of an initializer that are not dense."""
        return tuple(part for part in self.parts(name) if not isinstance(self._tensor(part), Dense))

    def array(self, name: str) -> NDArray[Any]:
        """Return the values of an initializer (``docs/format.md``, section 5)."""
        return self._resolved(name, lambda part: self._tensor(part).dense())

    def _steps(self, name: str) -> int:
        """Return how many moves lie between the binding and ``name``."""
        steps = 0
        while name in self._moved:
            name, steps = self._moved[name][1], steps + 1
        return steps

    def _root(self, name: str) -> str:
        while name in self._moved:
            name = self._moved[name][1]
        return name

    def _resolved(self, name: str, values: Callable[[str], NDArray[Any]]) -> NDArray[Any]:
        """Return an initializer of other values of its tensors, of the same shapes."""
        if name not in self._moved:
            return resolve(self._bindings[name], values)
        node, source, given, place = self._moved[name]
        return np.ascontiguousarray(moved(node, self._resolved(source, values), given)[place])

    def int8(self, name: str, axis: int) -> Int8Weight | str:
        """Return an initializer as int8 codes with one scale or scales along the output axis, or the reason why not."""
        tensor, *more = dict.fromkeys(self.parts(name))
        if more:
            return "it is put together of several tensors"
        stored, one = self._tensor(tensor), whole(self._bindings[self._root(name)])
        match stored:
            case Quantized() if stored.scheme.symmetric:
                granularity = stored.scheme.granularity
                cut = one is None or name in self._moved
                if stored.scale.size > 1 and (cut or isinstance(granularity, PerBlock)):
                    return self._along(name, stored, axis)
                along = _scale_axis(granularity, stored.shape)
            case _:
                return _storage(stored)
        if isinstance(along, str):
            return along
        codes = self._resolved(name, lambda _: stored.codes).astype(np.int8, copy=False)
        if along is not None and one is not None and _follow(along, stored.shape, one, codes.shape) != axis:
            return f"its scales do not run along the output axis, {axis}"
        return Int8Weight(codes, stored.scale, None if along is None else axis)

    def int8_rows(self, name: str) -> Int8Rows | str:
        """Return an initializer ``(..., rows, in)``, of any number of tensors, with a scale for each row, or why not.

        The data that it multiplies are uint8.
        """
        codes, scales = {}, {}
        for part in self.parts(name):
            stored = self._tensor(part)
            if not (isinstance(stored, Quantized) and stored.scheme.symmetric):
                return _storage(stored)
            index = stored.scheme.granularity.index(stored.shape)
            codes[part], scales[part] = stored.codes, np.broadcast_to(stored.scale[index], stored.shape)
        scale = self._resolved(name, scales.__getitem__)
        if (scale != scale[..., :1]).any():
            return "its scales do not run along the output axis"
        rows = self._resolved(name, codes.__getitem__).astype(np.int8, copy=False)
        if (np.abs(rows.astype(np.int32)).sum(-1, dtype=np.int64) * 255 >= 2**31).any():
            return "its sums would not fit 32 bits"
        return Int8Rows(rows, np.ascontiguousarray(scale[..., 0]))

    def grid(self, name: str, *, bits: int) -> ElementGrid | None:
        """Return an initializer of any affine grids of at most ``bits`` bits, None if it has others."""
        binding = self._bindings[self._root(name)]
        one = None if name in self._moved or binding.shape is not None else whole(binding)
        codes, which = dict[str, NDArray[Any]](), dict[str, NDArray[Any]]()
        scales, zeros, count = list[NDArray[np.float32]](), list[NDArray[np.uint8]](), 0
        for part in self.parts(name):
            stored = self._tensor(part)
            if not isinstance(stored, Quantized) or stored.scheme.bits > bits:
                return None
            middle, zero = 1 << (bits - 1), stored.zero_point
            codes[part] = stored.codes if zero is not None else stored.codes.view(np.uint8) + np.uint8(middle)
            own = stored.scheme.granularity.index(stored.shape).astype(np.int32) + np.int32(count)
            which[part] = own if one else np.broadcast_to(own, stored.shape)
            scales.append(stored.scale)
            zeros.append(np.full(stored.scale.shape, middle, np.uint8) if zero is None else zero)
            count += stored.scale.size

        def placed(values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            if one is None:
                return self._resolved(name, values.__getitem__)
            return values[one.tensor].transpose(one.permute or range(len(self.shapes[name])))  # without a copy

        return ElementGrid(placed(codes), placed(which), np.concatenate(scales), np.concatenate(zeros))

    def _along(self, name: str, stored: Quantized, axis: int) -> Int8Weight | str:
        """Return a moved or blocked initializer as int8 codes if every index of the output axis has one scale."""
        index = np.broadcast_to(stored.scheme.granularity.index(stored.shape).astype(np.int32), stored.shape)
        lines = np.moveaxis(self._resolved(name, lambda _: index), axis, 0)
        lines = lines.reshape(len(lines), -1)
        if not lines.size or (lines != lines[:, :1]).any():
            return f"its scales do not run along the output axis, {axis}"
        codes = self._resolved(name, lambda _: stored.codes).astype(np.int8, copy=False)
        return Int8Weight(codes, stored.scale[lines[:, 0]], axis)


def _storage(stored: CompressedTensor) -> str:
    """Return why integer kernels do not read a tensor that has no symmetric grid."""
    match stored:
        case Quantized():
            return "its grid is asymmetric: a storage format"
        case Dense():
            return "it is stored as its values"
        case Codebook():
            return "it has a codebook: a storage format"
        case _:
            return "it is sparse with values of their own: a storage format"


def _scale_axis(granularity: Granularity, shape: Shape) -> int | str | None:
    """Return the axis of a tensor's scales, None for a single scale, or the reason why there is no such axis."""
    count = granularity.count(shape)
    match granularity:
        case PerGroup(axis=axis, size=size) if count > shape[axis]:
            return f"it has groups of {size}: a storage format"
        case PerBucket(size=size) if count > 1:
            return f"it has buckets of {size}: a storage format"
        case PerChannel(axis=axis) | PerGroup(axis=axis) if count > 1:
            return axis
    return None


def _follow(axis: int, shape: Shape, one: Whole, target: Shape) -> int | None:
    """Return the position of an axis of size > 1 after permute and reshape, None if it is split or merged."""
    permuted = shape if one.permute is None else tuple(shape[i] for i in one.permute)
    place = axis if one.permute is None else one.permute.index(axis)
    before = math.prod(permuted[:place])
    for i, size in enumerate(target):
        if size == permuted[place] and math.prod(target[:i]) == before:
            return i
    return None
