"""Class layout: which axis of a model's outputs has the classes, and which target is not counted.

Losses, metrics and reports of a run share one layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attar._src.core.errors import SpecError

#: Target of positions that are not counted, as in ``torch.nn.CrossEntropyLoss``.
IGNORE_INDEX = -100

_Shape = Sequence[int]


@dataclass(frozen=True)
class ClassLayout:
    """Where the classes of outputs are, and which targets count.

    Attributes:
        axis: the class axis; negative ones count from the end. None: the shapes of outputs and targets tell it.
        ignore_index: target of positions that losses and metrics leave out.

    Example:
        >>> ClassLayout().axis_of((8, 19, 64, 64), (8, 64, 64))
        1
        >>> ClassLayout().axis_of((8, 30, 5), (8, 30))
        2
    """

    axis: int | None = None
    ignore_index: int = IGNORE_INDEX

    def settled(self, outputs: _Shape, targets: _Shape | None) -> ClassLayout:
        """Return the layout with the axis that these shapes tell, so that later batches of other lengths keep it.

        If they do not tell it, the layout is returned unchanged.
        """
        fitting = fitting_axes(outputs, targets)
        return replace(self, axis=fitting[0]) if self.axis is None and len(fitting) == 1 else self

    def axis_of(self, outputs: _Shape, targets: _Shape | None) -> int:
        """Return the class axis of outputs, from 1.

        Args:
            outputs: their shape ``(N, ...)``.
            targets: shape ``(N, ...)`` of class labels, None if there are none.

        Raises:
            SpecError: the outputs lack the given axis, or the shapes fit no axis or several.
        """
        count = len(outputs)
        if self.axis is not None:
            if self.axis not in {*range(1, count), *range(1 - count, 0)}:
                raise SpecError(
                    f"class_axis is {self.axis}, but outputs {tuple(outputs)} have the axes 1 to {count - 1} beside "
                    "the batch; set class_axis to the one of the classes"
                )
            return self.axis % count
        fitting = fitting_axes(outputs, targets)
        if len(fitting) == 1:
            return fitting[0]
        raise SpecError(_undecided(tuple(outputs), None if targets is None else tuple(targets), fitting))

    def is_binary(self, outputs: _Shape, targets: _Shape | None) -> bool:
        """Return whether outputs mean yes or no: there is one, (8,) or (8, 1), or each of several has a target."""
        if self.axis is None and (len(outputs) < 2 or one_target_each(outputs, targets)):
            return True
        settled = self.settled(outputs, targets)
        return settled.axis is not None and outputs[settled.axis_of(outputs, targets)] == 1


#: The layout if nothing is given: shapes tell the class axis, -100 is ignored.
FROM_SHAPES = ClassLayout()


def fitting_axes(outputs: _Shape, targets: _Shape | None) -> list[int]:
    """Return the axes of outputs that can be the class axis.

    Without it, outputs have the shape of class labels: (8, 19, 64, 64) and (8, 64, 64) give [1], (8, 5, 5) and (8, 5)
    give [1, 2]. Outputs ``(N, C)`` have one axis to choose, unless there is a target for each of several outputs.
    """
    outputs = tuple(outputs)
    if len(outputs) == 2:
        return [] if one_target_each(outputs, targets) else [1]
    rest = ((axis, outputs[:axis] + outputs[axis + 1 :]) for axis in range(1, len(outputs)))
    return [axis for axis, labels in rest if targets is not None and labels == tuple(targets)]


def usual_axis(dimensions: int) -> int:
    """Return the class axis that outputs of so many axes usually have: 1 of maps ``(N, C, H, W)``, else the last."""
    return 1 if dimensions >= 4 else -1


def same_but_ones(one: _Shape, other: _Shape) -> bool:
    """Return whether two shapes differ by axes of length 1 after the first at most: (8, 1) and (8,)."""
    first, second = ([*shape[:1], *(n for n in shape[1:] if n != 1)] for shape in (one, other))
    return first == second


def one_target_each(outputs: _Shape, targets: _Shape | None) -> bool:
    """Return whether each of several outputs, such as (8, 5), has a target of its own: yes or no, or a number."""
    several = any(n != 1 for n in outputs[1:])
    return several and targets is not None and same_but_ones(outputs, targets)


def _undecided(outputs: tuple[int, ...], targets: tuple[int, ...] | None, fitting: list[int]) -> str:
    shown = f"outputs {outputs}" + (" without labels" if targets is None else f" and targets {targets}")
    if len(outputs) < 2:
        return f"{shown} have no class axis; one output that means yes or no needs the binary losses and metrics"
    if one_target_each(outputs, targets):
        return (
            f"{shown} have a target for each output: for labels that do not exclude each other use the binary losses "
            "and metrics (binary_kl, binary_cross_entropy, binary_accuracy); if they are classes, set class_axis, "
            "for example to 1"
        )
    choice = " or ".join(f"{axis}" for axis in fitting or range(1, len(outputs)))
    return f"{shown} do not tell which axis has the classes; set class_axis to {choice}"
