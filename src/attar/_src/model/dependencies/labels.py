"""Labels: which elements of values and parameters can only be removed together.

A *field* numbers the elements of a tensor along some of its axes: int64, with the tensor's rank, of size 1 where the
label does not depend on the axis. The channels of ``(N, 3, H, W)`` are the field ``(1, 3, 1, 1)`` with three labels. A
tensor may have several fields on different axes, as a matrix ``(out, in)`` has. Labels that were united belong to one
*unit*; its elements are removed together or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch

Field = torch.Tensor
Fields = tuple[Field, ...]
#: One tensor's fields and its shape.
Operand = tuple[Fields, tuple[int, ...]]

#: What a move fills in, before it gets labels of its own.
FILLED = 0
#: Elements that stay.
FIXED = 1


class Labels:
    """All labels of a program, and which of them are united."""

    def __init__(self) -> None:
        self._parent = [FILLED, FIXED]
        self.frozen: dict[int, str] = {FIXED: "its size is fixed"}
        self.united_by: dict[int, str] = {}
        self.soft: set[int] = set()

    def new(self, count: int, *, soft: bool = False) -> torch.Tensor:
        """Return labels that no element has; ``soft`` ones are of buffers."""
        start = len(self._parent)
        if soft:
            self.soft.update(range(start, start + count))
        self._parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def root(self, label: int) -> int:
        """Return the number of the unit of a label."""
        parent = self._parent
        while parent[label] != label:
            parent[label] = label = parent[parent[label]]
        return label

    def roots(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the numbers of the units of labels, in their shape."""
        values, place = labels.unique(return_inverse=True)
        return torch.tensor([self.root(int(each)) for each in values], dtype=torch.int64)[place]

    def unite(self, a: torch.Tensor, b: torch.Tensor, why: str, *, same_tensor: bool = False) -> None:
        """Let labels at the same place, after broadcasting, be one unit.

        ``why`` is told of labels united with fixed ones, and of channels of the same tensor that all become one unit.
        """
        pairs = torch.stack([each.reshape(-1) for each in torch.broadcast_tensors(a, b)], 1)
        for first, second in pairs.unique(dim=0).tolist():
            one, other = self.root(first), self.root(second)
            if one == other:
                continue
            if FIXED in (one, other):
                self._freeze(max(one, other), f"{why} with a value of fixed size")
                continue
            keep, gone = sorted((one, other))
            self._parent[gone] = keep
            if gone not in self.soft:
                self.soft.discard(keep)
            if gone in self.frozen:
                self._freeze(keep, self.frozen.pop(gone))
            told = self.united_by.pop(gone, why if same_tensor else "")
            if told:
                self.united_by.setdefault(keep, told)

    def freeze(self, labels: torch.Tensor, why: str) -> None:
        """Let no element with these labels be removed."""
        for label in labels.unique().tolist():
            self._freeze(self.root(label), why)

    def _freeze(self, root: int, why: str) -> None:
        self.frozen.setdefault(root, why)

    def mix(self, fields: Iterable[Field], axes: Iterable[int], why: str) -> Fields:
        """Unite all elements along axes, whose values are computed from one another; return fields without these."""
        axes = [*axes]
        found = []
        for field in fields:
            for axis in axes:
                if field.shape[axis] > 1:
                    field = self._without(field, axis, why)
            found.append(field)
        return self.simplified(found)

    def join(self, operands: Sequence[Operand], why: str) -> Fields:
        """Unite the fields of operands of equal rank that are combined element by element, after broadcasting.

        Where another operand has as many elements along an axis, but no labels, what differs along it is united: of
        heads of channels that are multiplied by a fixed vector, the heads remain. Labels on no other axis are frozen.
        """
        for index, (fields, _) in enumerate(operands):
            for other, shape in (*operands[:index], *operands[index + 1 :]):
                for field in fields:
                    full = {axis for axis in varying(field) if shape[axis] > 1}
                    touching = [each for each in other if full & varying(each)]
                    met = [x for x in touching if not self._yields(x, field) and not self._yields(field, x)]
                    for each in met:
                        self.unite(field, each, why)
                    missing = full - set[int]().union(*map(varying, met))
                    self.fix(field, missing, f"{why} with a value of fixed size")
        return self.simplified([field for fields, _ in operands for field in fields])

    def fix(self, field: Field, axes: Collection[int], why: str) -> Fields:
        """Let the sizes along axes stay, so that a field depends on others alone; freeze it if it has no others."""
        axes = varying(field) & set(axes)
        if axes and axes == varying(field):
            self.freeze(field, why)
            return (field,)
        return self.mix([field], axes, why)

    def _yields(self, field: Field, other: Field) -> bool:
        """Whether a field is of buffers alone, such as angles of positions, and the other has further axes: heads."""
        return varying(field) < varying(other) and self.soft.issuperset(self.roots(field).reshape(-1).tolist())

    def simplified(self, fields: Iterable[Field]) -> Fields:
        """Return fields without axes on which no unit depends, and without those that others contain."""
        found: list[Field] = []
        for field in sorted(map(self.collapsed, fields), key=lambda each: -len(varying(each))):
            if varying(field) and not any(varying(field) <= varying(each) for each in found):
                found.append(field)
        return tuple(found)

    def collapsed(self, field: Field) -> Field:
        """Return a field of size 1 along the axes on which no unit depends; what is filled in may be any unit."""
        roots = self.roots(field)
        for axis in range(field.dim()):
            if field.shape[axis] == 1:
                continue
            high = roots.amax(axis, keepdim=True)
            low = torch.where(roots == FILLED, high, roots).amin(axis, keepdim=True)
            if torch.equal(low, high):
                field, roots = field.amax(axis, keepdim=True), high
        return field

    def one_axis(self, field: Field, axis: int | None = None) -> Field:
        """Return a field that depends on one axis alone, uniting what differs along the others.

        Without ``axis``, the one with the most different units is kept.
        """
        axes = varying(field)
        if axis is None and len(axes) < 2:
            return field
        if axis is None:
            roots = self.roots(field)
            axis = max(sorted(axes), key=lambda each: len(roots.unique(dim=each, sorted=False).movedim(each, 0)))
        for each in sorted(axes - {axis}):
            field = self._without(field, each, "a view divides its channels")
        return field

    def _without(self, field: Field, axis: int, why: str) -> Field:
        """Unite a field along an axis, and return it without."""
        first = field.narrow(axis, 0, 1)
        self.unite(field, first, why, same_tensor=True)
        return first


def varying(field: Field) -> set[int]:
    """Return the axes on which a field depends."""
    return {axis for axis, size in enumerate(field.shape) if size > 1}


def along(labels: torch.Tensor, axis: int, rank: int) -> Field:
    """Return labels as the field of a tensor with ``rank`` axes."""
    return labels.reshape([-1 if each == axis % rank else 1 for each in range(rank)])
