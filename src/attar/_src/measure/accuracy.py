"""Accuracy: the share of targets at which the output is largest; of arrays, and of a file on a data set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError, SpecError
from attar._src.core.progress import track
from attar._src.measure.chance import Chance, most_frequent, share_of
from attar._src.measure.class_labels import class_labels
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.measure.judged_output import judged_output
from attar._src.runtime.session import Session


def right_predictions(
    outputs: NDArray[Any], targets: NDArray[Any], layout: ClassLayout = FROM_SHAPES
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return for each counted target whether the largest output is at it, and the target.

    Targets are integers of the shape of the outputs without the class axis, or one-hot (``class_labels``). Negative
    targets and ``ignore_index`` are not counted: outputs ``[[0, 1], [2, 1]]`` and targets ``[1, -100]`` give ``[True]``
    and ``[1]``.

    Raises:
        DataError: targets do not fit the outputs, there is one class, or a counted target is no class.
    """
    targets = class_labels(outputs, targets, layout)
    try:
        axis = layout.axis_of(outputs.shape, targets.shape)
    except SpecError as error:
        raise DataError(f"accuracy of {error}") from error
    expected = outputs.shape[:axis] + outputs.shape[axis + 1 :]
    if targets.dtype.kind not in "iu" or expected != targets.shape:
        raise DataError(
            f"accuracy of outputs {outputs.shape} by targets {targets.dtype}{targets.shape}; integers of shape "
            f"{expected} were expected. Other targets need another metric, such as binary_accuracy or "
            "mean_squared_error"
        )
    counted = (targets >= 0) & (targets != layout.ignore_index)
    labels, classes = targets[counted], outputs.shape[axis]
    if classes == 1:
        raise DataError(
            f"accuracy of outputs {outputs.shape}: one class is always the largest; for one output that means yes or "
            "no use binary_accuracy"
        )
    if labels.max(initial=0) >= classes:
        raise DataError(
            f"labels up to {labels.max()} were given for {classes} outputs; a label that is no class is left out with "
            f"ignore_index={labels.max()}; else, is this the data the model was made for?"
        )
    return (outputs.argmax(axis) == targets)[counted], labels


def accuracy_by_label(right: NDArray[np.bool_], labels: NDArray[Any]) -> dict[str, float]:
    """Return label -> share of right predictions: ``[True, False]`` at labels ``[3, 3]`` give ``{"3": 0.5}``."""
    return {str(label): float(right[labels == label].mean()) for label in np.unique(labels)}


@dataclass(frozen=True)
class AccuracyMetric:
    """``accuracy``: the share of targets at which the output is largest, 0 to 1; larger is better.

    Targets are one class per example, or per position of a sequence or map, also one-hot; negative ones are not
    counted.

    Attributes:
        layout: class axis of outputs, and target that is not counted.
    """

    name: ClassVar[str] = "accuracy"
    larger_is_better: ClassVar[bool] = True
    layout: ClassLayout = FROM_SHAPES

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the accuracy of outputs, as ``(n, C)`` or ``(n, C, H, W)``, by integers ``(n,)`` or ``(n, H, W)``."""
        return _share(right_predictions(outputs, targets, self.layout)[0])

    def chance(self, outputs: NDArray[Any], targets: NDArray[Any]) -> Chance:
        """Return the chance: the share of the most frequent class."""
        labels = right_predictions(outputs, targets, self.layout)[1]
        label, share = most_frequent(labels)
        return share_of(f"class {label}", share, len(labels))


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a file on a data set.

    Attributes:
        accuracy: ``correct / predictions``, 0 to 1.
        predictions: number of labels counted; differs from ``examples`` if an example has several labels.
        standard_error: ``sqrt(p (1 - p) / n)`` of ``n`` predictions: what another test set of this size might change.
        per_class: label -> accuracy.
    """

    accuracy: float
    examples: int
    predictions: int
    correct: int
    standard_error: float
    per_class: dict[str, float]


def evaluate_accuracy(
    session: Session,
    raw: NDArray[Any],
    labels: NDArray[np.int64] | None,
    *,
    batch: int = 256,
    layout: ClassLayout = FROM_SHAPES,
) -> Accuracy:
    """Measure the accuracy of a file's main output.

    Args:
        session: the decoded file, with one input.
        raw: raw examples ``(n, ...)``; the file's own preprocessing makes inputs of them.
        labels: int64 ``(n, ...)``, the output's shape without its class axis; negative ones are not counted.
        batch: examples that run at once, if the graph does not fix it.
        layout: class axis of the output, and label that is not counted.
    """
    if labels is None:
        raise DataError("there are no labels to judge predictions by; choose a split or data set that has them")
    if len(labels) != len(raw) or not len(raw):
        raise DataError(f"{len(raw)} examples came with {len(labels)} labels; at least one of each is needed")
    if batch < 1:
        raise DataError(f"a batch of {batch} was asked for; use 1 or more")
    fixed = session.inputs[0].shape[0] if session.inputs[0].shape else None
    step = fixed if isinstance(fixed, int) else batch
    pairs = []
    for start in track(range(0, len(raw), step), "evaluating"):
        outputs = judged_output(session, [session.preprocess(raw[start : start + step])])
        pairs.append(right_predictions(outputs, labels[start : start + step], layout))
    right, counted = (np.concatenate(each) for each in zip(*pairs, strict=True))
    share = _share(right)
    return Accuracy(
        accuracy=share,
        examples=len(raw),
        predictions=right.size,
        correct=int(right.sum()),
        standard_error=math.sqrt(share * (1 - share) / right.size),
        per_class=accuracy_by_label(right, counted),
    )


def _share(right: NDArray[np.bool_]) -> float:
    if not right.size:
        raise DataError("accuracy: every target is negative or ignored; nothing is left to judge")
    return float(right.mean())
