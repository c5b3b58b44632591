"""Metric: how good the outputs of a whole set are, one number. Part of ``measure``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import AttarError, DataError, SpecError
from attar._src.core.registry import Registry
from attar._src.runtime.session import Session

#: Outputs and targets of a whole set -> how good they are.
Metric = Callable[[NDArray[Any], NDArray[Any]], float]
#: The positional inputs of some examples, and what their outputs are judged by.
Examples = tuple[tuple[NDArray[Any], ...], NDArray[Any]]


class AccuracyMetric:
    """``accuracy``: the share of positions where the largest element of the last axis is at the target.

    For classes, of an example or of every position of a sequence; larger is better. Negative targets are not counted,
    as the losses leave out those of -100.
    """

    name: ClassVar[str] = "accuracy"

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the share for ``outputs`` ``(n, ..., classes)`` and integer ``targets`` ``(n, ...)``.

        Raises:
            DataError: the two do not fit each other, or no target is counted.
        """
        if targets.dtype.kind not in "iu" or outputs.shape[:-1] != targets.shape:
            raise DataError(
                f"accuracy of outputs {outputs.shape} by targets {targets.dtype}{targets.shape}; integers of shape "
                f"{outputs.shape[:-1]} were expected, or another metric: {', '.join(METRICS)}, file.py:name"
            )
        counted = targets >= 0
        if not counted.any():
            raise DataError("accuracy: every target is negative, which says not to count it; there is nothing to judge")
        return float(np.mean((outputs.argmax(-1) == targets)[counted]))


class MeanSquaredError:
    """``mean_squared_error``: the mean of ``(output - target)^2`` over every element of numbers; smaller is better."""

    name: ClassVar[str] = "mean_squared_error"

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the mean for ``outputs`` and ``targets`` of one shape; an axis of one may be missing.

        Raises:
            DataError: the two do not fit each other.
        """
        if outputs.size != targets.size:
            raise DataError(f"mean squared error of outputs {outputs.shape} by targets {targets.shape}")
        difference = outputs.astype(np.float64) - targets.reshape(outputs.shape)
        return float(np.mean(np.square(difference)))


METRICS: Registry[Metric] = Registry("metric", AccuracyMetric(), MeanSquaredError())


@dataclass(frozen=True)
class Guarded:
    """A metric whose failures are said in its name.

    Attributes:
        name: what logs call it.
        metric: itself.
    """

    name: str
    metric: Metric

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return what the metric says; NaN where it says so.

        Raises:
            SpecError: it raised something, or gave no number.
            AttarError: it refused them in words of its own.
        """
        try:
            found: Any = self.metric(outputs, targets)
        except AttarError:
            raise
        except Exception as error:
            raise SpecError(
                f"metric {self.name!r} of outputs {outputs.dtype}{outputs.shape} and targets {targets.dtype}"
                f"{targets.shape} raised {type(error).__name__}: {error}"
            ) from error
        try:
            return float(found)
        except (TypeError, ValueError):
            raise SpecError(f"metric {self.name!r} returned {type(found).__name__}; one number is needed") from None


def find(metric: Any) -> tuple[str, Metric]:
    """Return what logs call a metric, and the metric, guarded.

    Args:
        metric: a registered word, ``file.py:name`` of a function of outputs and targets, or such a function.

    Raises:
        UnknownName: no metric has this name.
        SpecError: it names or is nothing that can be called.
    """
    found = METRICS[metric] if isinstance(metric, str) else metric
    if not callable(found):
        raise SpecError(f"metric {metric!r} is a {type(found).__name__}; a function of outputs and targets is needed")
    if isinstance(metric, str):
        name = metric.rpartition(":")[2]
    else:
        name = str(getattr(found, "name", None) or getattr(found, "__name__", type(found).__name__))
    return name, Guarded(name, found)


@dataclass(frozen=True)
class Scored:
    """What a metric says of a file on a set.

    Attributes:
        value: the metric.
        examples: how many examples were seen.
        per_class: label -> share of right predictions among its own, for integer targets and outputs that score
            several classes; empty else.
    """

    value: float
    examples: int
    per_class: dict[str, float]


def score(session: Session, batches: Iterable[Examples], metric: Metric, *, classes: bool = True) -> Scored:
    """Run a set through a file and judge its main output (``Session.main_output``).

    Args:
        session: the decoded file.
        batches: inputs, as the graph takes them, with targets; as long as the graph's batch where that is fixed: a
            shorter one is filled up with copies of its last example.
        metric: takes the outputs and targets of the whole set.
        classes: whether integer targets are classes.

    Raises:
        DataError: there are no examples, an output is not finite, or outputs and targets do not fit.
    """
    axis = session.inputs[0].shape[0] if session.inputs[0].shape else None
    outputs, wanted = [], []
    for inputs, targets in batches:
        missing = axis - len(inputs[0]) if isinstance(axis, int) else 0
        full = [np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing > 0 else x for x in inputs]
        named = {port.name: array for port, array in zip(session.inputs, full, strict=True)}
        outputs.append(session.run(named)[session.main_output][: len(inputs[0])])
        wanted.append(targets)
    if not outputs:
        raise DataError("there are no examples to judge the file by")
    made, targets = np.concatenate(outputs), np.concatenate(wanted)
    if not np.isfinite(made).all():
        raise DataError(f"output {session.main_output!r} is not finite; nothing can be judged by it")
    return Scored(float(metric(made, targets)), len(made), per_class(made, targets) if classes else {})


def per_class(outputs: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
    """Return label -> share of right predictions among its own, empty where outputs do not score several classes.

    Negative targets are not counted.
    """
    if targets.dtype.kind not in "iu" or outputs.ndim < 2 or outputs.shape[:-1] != targets.shape:
        return {}
    if outputs.shape[-1] < 2:
        return {}
    right = outputs.argmax(-1) == targets
    return {str(label): float(right[targets == label].mean()) for label in np.unique(targets) if label >= 0}
