"""Accuracy: the share of targets at which the output is largest; of arrays, and of a file on a data set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError
from attar._src.core.progress import track
from attar._src.measure.judged_output import judged_output
from attar._src.runtime.session import Session


def right_predictions(outputs: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return for each counted target whether the largest output is at it, and the target.

    Outputs are ``(n, ..., classes)``, targets integers ``(n, ...)``. Negative targets are not counted, as losses ignore
    -100: outputs ``[[0, 1], [2, 1]]`` and targets ``[1, -100]`` give ``[True]`` and ``[1]``.
    """
    if targets.dtype.kind not in "iu" or outputs.shape[:-1] != targets.shape:
        raise DataError(
            f"accuracy of outputs {outputs.shape} by targets {targets.dtype}{targets.shape}; integers of shape "
            f"{outputs.shape[:-1]} were expected. Other targets need another metric, such as mean_squared_error"
        )
    counted = targets >= 0
    return (outputs.argmax(-1) == targets)[counted], targets[counted]


def accuracy_by_label(right: NDArray[np.bool_], labels: NDArray[Any]) -> dict[str, float]:
    """Return label -> share of right predictions: ``[True, False]`` at labels ``[3, 3]`` give ``{"3": 0.5}``."""
    return {str(label): float(right[labels == label].mean()) for label in np.unique(labels)}


class AccuracyMetric:
    """``accuracy``: the share of targets at which the output is largest, 0 to 1; larger is better.

    Targets are one class per example, or per position of a sequence; negative ones are not counted.
    """

    name: ClassVar[str] = "accuracy"
    larger_is_better: ClassVar[bool] = True

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the accuracy of ``outputs`` ``(n, ..., classes)`` by integer ``targets`` ``(n, ...)``."""
        return _share(right_predictions(outputs, targets)[0])


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
    session: Session, raw: NDArray[Any], labels: NDArray[np.int64] | None, *, batch: int = 256
) -> Accuracy:
    """Measure the accuracy of a file's main output.

    Args:
        session: the decoded file, with one input.
        raw: raw examples ``(n, ...)``; the file's own preprocessing makes inputs of them.
        labels: int64 ``(n, ...)``, the output's shape without its last axis; negative ones are not counted.
        batch: examples that run at once, if the graph does not fix it.
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
        pairs.append(right_predictions(outputs, labels[start : start + step]))
        if (highest := labels[start : start + step].max(initial=0)) >= outputs.shape[-1]:
            raise DataError(
                f"labels up to {highest} were given for {outputs.shape[-1]} outputs; "
                "is this the data the model was made for?"
            )
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
        raise DataError("accuracy: every target is negative, which excludes it; nothing is left to judge")
    return float(right.mean())
