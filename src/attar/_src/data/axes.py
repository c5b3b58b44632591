"""Axes of a module's inputs: the one that counts examples, and those whose length may vary at run time.

A user writes ``dynamic``: axes of every input, ``(0, 1)``, or of some by name, the batch axis first:
``{"x": (0, 1), "state": (1,)}``. Without a name the batch axis is axis 0, or the only other one that is as long as the
batch: axis 1 of a recurrent state ``(layers, batch, hidden)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attar._src.core.errors import DataError, UnknownName

#: Axes of every input, or of inputs by name; None: the batch axes, and those whose length differs between batches.
Dynamic = Sequence[int] | Mapping[str, Sequence[int]] | None


@dataclass(frozen=True)
class Axes:
    """Axes of one input.

    Attributes:
        batch: counts the examples.
        varying: those with any length at run time, the batch axis among them unless its size is fixed.
    """

    batch: int = 0
    varying: tuple[int, ...] = (0,)


def same_axes(dynamic: Sequence[int | Axes], ranks: Sequence[int]) -> tuple[Axes, ...]:
    """Return the axes of inputs with these ranks: as given, or the same numbers for each that has them."""
    given = [each for each in dynamic if isinstance(each, Axes)]
    if given:
        return tuple(given)
    return tuple(Axes(0, tuple(a for a in dynamic if isinstance(a, int) and a < rank)) for rank in ranks)


def batch_axes(dynamic: Dynamic, names: Sequence[str], batches: Sequence[Sequence[Sequence[int]]]) -> tuple[int, ...]:
    """Return the axis of each input that counts examples; ``batches`` has the shapes of each batch's inputs.

    Raises:
        DataError: an input has no axis as long as the batch, or two besides axis 0.
        UnknownName: ``dynamic`` names an input that there is not.
    """
    named = dynamic if isinstance(dynamic, Mapping) else {}
    for name in named:
        if name not in names:
            raise UnknownName("input", name, names)
    first = next(iter(named.get(names[0], ())), 0) if names else 0
    counts = [_length(shapes[0], first) for shapes in batches]
    found = [first]
    for place in range(1, len(batches[0])):
        name = names[place] if names else f"input {place}"
        own = next(iter(named.get(name, ())), None)
        found.append(_find(name, [shapes[place] for shapes in batches], counts) if own is None else own)
    return tuple(found)


def _find(name: str, shapes: Sequence[Sequence[int]], counts: Sequence[int]) -> int:
    fitting = [
        axis
        for axis in range(min(map(len, shapes)))
        if all(shape[axis] == count for shape, count in zip(shapes, counts, strict=True))
    ]
    if fitting[:1] == [0] or len(fitting) == 1:
        return fitting[0]
    many = f"{len(fitting)} axes" if fitting else "no axis"
    raise DataError(
        f"input {name!r} {tuple(shapes[0])} has {many} of {counts[0]}, the number of examples in the first input; give "
        f"the same number of each, or name its batch axis: dynamic={{{name!r}: (1,)}}"
    )


def _length(shape: Sequence[int], axis: int) -> int:
    if axis >= len(shape):
        raise DataError(f"the first input has the shape {tuple(shape)} and no axis {axis} to count examples")
    return shape[axis]


def input_axes(
    dynamic: Dynamic, names: Sequence[str], batch: Sequence[int], batches: Sequence[Sequence[Sequence[int]]]
) -> tuple[Axes, ...]:
    """Return the axes of each input.

    Raises:
        DataError: batches differ along an axis that ``dynamic`` leaves out; the message has the line to write.
    """
    found = []
    for place, own in enumerate(batch):
        shapes = [each[place] for each in batches]
        if len({len(shape) for shape in shapes}) > 1:
            raise DataError(
                f"input {names[place]!r} has the shapes {sorted({tuple(s) for s in shapes})}; give one rank"
            )
        differ = {axis for axis in range(len(shapes[0])) if len({shape[axis] for shape in shapes}) > 1} - {own}
        if dynamic is None:
            varying = tuple(sorted({own, *differ}))
        elif isinstance(dynamic, Mapping):
            varying = tuple(dynamic.get(names[place], (own,)))
        elif own == 0:
            varying = tuple(axis for axis in dynamic if axis < len(shapes[0]))
        else:
            varying = (own,) if 0 in dynamic else ()
        if missing := sorted(differ - set(varying)):
            lengths = sorted({shape[missing[0]] for shape in shapes})
            raise DataError(
                f"input {names[place]!r} has the lengths {lengths} along axis {missing[0]}, which dynamic={dynamic!r} "
                f"fixes; write dynamic={_with(dynamic, names[place], (*varying, *missing))}, or pad all batches alike"
            )
        found.append(Axes(own, varying))
    return tuple(found)


def _with(dynamic: Dynamic, name: str, varying: tuple[int, ...]) -> str:
    return repr({**dynamic, name: varying} if isinstance(dynamic, Mapping) else varying)
