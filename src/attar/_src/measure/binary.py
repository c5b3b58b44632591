"""Metrics of outputs that mean yes or no each: one logit, or several labels that do not exclude each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError
from attar._src.measure.chance import Chance, most_frequent, share_of
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout, same_but_ones


@dataclass(frozen=True)
class BinaryAccuracy:
    """``binary_accuracy``: the share of outputs above 0 at targets 1, or not above 0 at targets 0; larger is better.

    Outputs are logits, so that 0 stands for a probability of 0.5. Targets are 0 or 1, one for each output; negative
    ones are not counted.

    Attributes:
        layout: target that is not counted.
    """

    name: ClassVar[str] = "binary_accuracy"
    larger_is_better: ClassVar[bool] = True
    layout: ClassLayout = FROM_SHAPES

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the share for ``outputs`` and ``targets`` of the same shape, but for axes of length 1."""
        predicted, wanted = yes_and_no(outputs, targets, self.layout, self.name)
        return float((predicted == wanted).mean())

    def chance(self, outputs: NDArray[Any], targets: NDArray[Any]) -> Chance:
        """Return the chance: the share of the more frequent of yes and no."""
        wanted = yes_and_no(outputs, targets, self.layout, self.name)[1]
        yes, share = most_frequent(wanted)
        return share_of("yes" if yes else "no", share, wanted.size)


@dataclass(frozen=True)
class F1:
    """``f1``: ``2 TP / (2 TP + FP + FN)`` over all outputs, predicted yes if above 0; larger is better.

    TP are outputs rightly predicted yes, FP wrongly yes, FN wrongly no: the harmonic mean of precision and recall,
    "micro-averaged" over labels. It is 0 if no output is or should be yes. Outputs and targets are those of
    ``binary_accuracy``.

    Attributes:
        layout: target that is not counted.
    """

    name: ClassVar[str] = "f1"
    larger_is_better: ClassVar[bool] = True
    layout: ClassLayout = FROM_SHAPES

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return F1 of ``outputs`` and ``targets`` of the same shape, but for axes of length 1."""
        predicted, wanted = yes_and_no(outputs, targets, self.layout, self.name)
        return 2 * int((predicted & wanted).sum()) / max(int(predicted.sum()) + int(wanted.sum()), 1)

    def chance(self, outputs: NDArray[Any], targets: NDArray[Any]) -> Chance:
        """Return the chance: with a share p of yes, always yes has F1 ``2 p / (1 + p)``."""
        wanted = yes_and_no(outputs, targets, self.layout, self.name)[1]
        share = float(wanted.mean())
        return share_of("yes", 2 * share / (1 + share), wanted.size)


def yes_and_no(
    outputs: NDArray[Any], targets: NDArray[Any], layout: ClassLayout, what: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each counted output whether it is above 0, and whether its target is 1.

    Raises:
        DataError: there is not one target for each output, a counted target is neither 0 nor 1, or none is counted.
    """
    if not same_but_ones(outputs.shape, targets.shape):
        raise DataError(
            f"{what} of outputs {outputs.shape} by targets {targets.dtype}{targets.shape}; a target, 0 or 1, for each "
            "output was expected. One label of several classes needs accuracy"
        )
    targets = targets.reshape(outputs.shape)
    counted = (targets >= 0) & (targets != layout.ignore_index)
    labels = targets[counted]
    if not labels.size:
        raise DataError(f"{what}: every target is negative or ignored; nothing is left to judge")
    if not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"{what} takes targets 0 and 1; they lie between {labels.min():g} and {labels.max():g}. A target that is "
            "neither is left out with an ignore_index"
        )
    return outputs[counted] > 0, labels == 1
