"""Metrics: one number for the outputs of a whole set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import AttarError, DataError, SpecError
from attar._src.core.registry import Registry
from attar._src.measure.accuracy import AccuracyMetric, accuracy_by_label, right_predictions
from attar._src.measure.binary import F1, BinaryAccuracy
from attar._src.measure.chance import Chance, HasChance
from attar._src.measure.class_labels import class_labels
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout, same_but_ones
from attar._src.measure.judged_output import judged_output
from attar._src.runtime.session import Session

#: Outputs ``(n, ...)`` and targets ``(n, ...)`` of a whole set -> a number.
Metric = Callable[[NDArray[Any], NDArray[Any]], float]
#: The inputs of a batch, in order, and its targets.
Examples = tuple[tuple[NDArray[Any], ...], NDArray[Any]]


class MeanSquaredError:
    """``mean_squared_error``: the mean of ``(output - target)^2`` over all elements; smaller is better."""

    name: ClassVar[str] = "mean_squared_error"
    larger_is_better: ClassVar[bool] = False

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the mean for ``outputs`` and ``targets`` of the same shape, but for axes of length 1."""
        if not same_but_ones(outputs.shape, targets.shape):
            raise DataError(
                f"mean squared error of outputs {outputs.shape} by targets {targets.dtype}{targets.shape}; a target "
                "for each output was expected. Labels of classes are integers"
            )
        difference = outputs.astype(np.float64) - targets.reshape(outputs.shape)
        return float(np.mean(np.square(difference)))

    def chance(self, outputs: NDArray[Any], targets: NDArray[Any]) -> Chance:
        """Return the chance: the variance of the targets, which their mean reaches."""
        variance = float(np.mean(np.var(targets.astype(np.float64), axis=0)))
        return Chance("the mean target", variance, variance, larger_is_better=False)


METRICS: Registry[Metric] = Registry("metric", AccuracyMetric(), BinaryAccuracy(), F1(), MeanSquaredError())


@dataclass(frozen=True)
class Guarded:
    """A metric with errors that give its name in logs."""

    name: str
    metric: Metric

    @property
    def larger_is_better(self) -> bool | None:
        """What the metric says of itself in an attribute of this name; None if it says nothing."""
        found: bool | None = getattr(self.metric, "larger_is_better", None)
        return found

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the metric, which may be NaN.

        Raises:
            SpecError: the function raised an exception that is no AttarError, or did not return a number.
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


def usual_metric(outputs: NDArray[Any], targets: NDArray[Any], layout: ClassLayout = FROM_SHAPES) -> str:
    """Return the name of the metric that fits: of labels 0 or 1 for each output, of classes, or of numbers.

    Negative integers and ``ignore_index`` are not counted. Outputs (8, 1) and targets (8,) of 0 and 1 have
    ``binary_accuracy``. One-hot targets are classes.
    """
    if class_labels(outputs, targets, layout).shape != targets.shape:
        return AccuracyMetric.name
    integers = targets.dtype.kind in "iub"
    counted = targets[(targets >= 0) & (targets != layout.ignore_index)] if integers else targets
    if layout.is_binary(outputs.shape, targets.shape):
        return "binary_accuracy" if np.isin(counted, (0, 1)).all() else "mean_squared_error"
    return "accuracy" if integers else "mean_squared_error"


def find(metric: Any, layout: ClassLayout = FROM_SHAPES) -> tuple[str, Metric]:
    """Return the name in logs and the function of a metric: a registered name, ``file.py:name``, or a function.

    Attar's own metrics of labels follow ``layout``.
    """
    if isinstance(metric, str):
        name, found = metric.rpartition(":")[2], METRICS[metric]
        if isinstance(found, AccuracyMetric | BinaryAccuracy | F1):
            found = replace(found, layout=layout)
    else:
        found = metric
        name = str(getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__))
    if not callable(found):
        raise SpecError(f"metric {metric!r} is a {type(found).__name__}; a function of outputs and targets is needed")
    return name, Guarded(name, found)


def judging_metric(metric: Any, layout: ClassLayout = FROM_SHAPES) -> tuple[str, Metric] | None:
    """Return the name and the function of the metric that judges, None for the usual one of outputs and labels.

    A word that is neither a registered name nor ``file.py:name`` only tells a file's users what to measure.

    Args:
        metric: what a user gave: a name, ``file.py:name``, a function, or None.
        layout: for Attar's own metrics of labels.

    Raises:
        SpecError, UnknownName: there is no such function.

    Example:
        >>> judging_metric("mean_squared_error")[0], judging_metric("bleu"), judging_metric(None)
        ('mean_squared_error', None, None)
    """
    only_told = isinstance(metric, str) and metric not in METRICS and ":" not in metric
    return None if metric is None or only_told else find(metric, layout)


def metric_name(metric: Any) -> str | None:
    """Return the name by which files and logs call a metric: without the path of its file."""
    if metric is None or isinstance(metric, str):
        return metric and metric.rpartition(":")[2]
    return find(metric)[0]


@dataclass(frozen=True)
class Scored:
    """The metric of a file on a set.

    Attributes:
        per_class: label -> accuracy; empty if the task has no classes.
        chance: what a constant answer reaches; None if the metric does not tell.
    """

    value: float
    examples: int
    per_class: dict[str, float]
    chance: Chance | None = None


def score(
    session: Session,
    batches: Iterable[Examples],
    metric: Metric,
    *,
    classes: bool = True,
    layout: ClassLayout = FROM_SHAPES,
) -> Scored:
    """Run a set through a file and judge its main output.

    Args:
        session: the decoded file.
        batches: preprocessed; at most as long as the graph's batch, if that is fixed.
        metric: of the outputs and targets of the whole set.
        classes: whether integer targets are classes.
        layout: class axis of the output, and target that is no class.
    """
    pairs = [(judged_output(session, inputs), targets) for inputs, targets in batches]
    if not pairs:
        raise DataError("there are no examples to judge the file by")
    outputs, targets = join_batches(pairs, layout)
    by_class = per_class(outputs, targets, layout) if classes else {}
    return Scored(float(metric(outputs, targets)), len(outputs), by_class, chance_of(metric, outputs, targets))


def join_batches(batches: Sequence[tuple[NDArray[Any], ...]], layout: ClassLayout = FROM_SHAPES) -> list[NDArray[Any]]:
    """Return each array of batches ``(outputs, ..., targets)`` as one; shorter batches are padded to the longest.

    Outputs are padded with 0, integer targets with ``ignore_index``, which is not counted. Targets (8, 30) and (8, 25)
    give (16, 30), of which 40 are not counted.

    Raises:
        DataError: the batches have other numbers of axes, or targets that are no integers have other lengths.
    """
    columns = [list(column) for column in zip(*batches, strict=True)]
    fills = [0] * (len(columns) - 1) + [layout.ignore_index]
    if columns[-1][0].dtype.kind not in "iu" and len({each.shape[1:] for each in columns[-1]}) > 1:
        raise DataError("targets that are numbers have another length in each batch; a metric needs one length")
    return [_padded(column, fill) for column, fill in zip(columns, fills, strict=True)]


def _padded(batches: Sequence[NDArray[Any]], fill: int) -> NDArray[Any]:
    shapes = sorted({each.shape[1:] for each in batches})
    if len({len(shape) for shape in shapes}) > 1:
        raise DataError(f"examples of the shapes {shapes[0]} and {shapes[-1]} cannot be judged by one metric")
    longest = np.max(shapes, axis=0)
    padded = [[(0, 0), *((0, most - own) for most, own in zip(longest, x.shape[1:], strict=True))] for x in batches]
    return np.concatenate([np.pad(x, pad, constant_values=fill) for x, pad in zip(batches, padded, strict=True)])


def chance_of(metric: Metric, outputs: NDArray[Any], targets: NDArray[Any]) -> Chance | None:
    """Return what a constant answer reaches; None if the metric does not tell."""
    own = getattr(metric, "metric", metric)
    return own.chance(outputs, targets) if isinstance(own, HasChance) else None


def per_class(outputs: NDArray[Any], targets: NDArray[Any], layout: ClassLayout = FROM_SHAPES) -> dict[str, float]:
    """Return label -> accuracy of that class; empty if outputs do not score two classes or more at integer targets."""
    targets = class_labels(outputs, targets, layout)
    axis = layout.settled(outputs.shape, targets.shape).axis
    if targets.dtype.kind not in "iu" or axis is None or outputs.ndim != targets.ndim + 1 or outputs.shape[axis] < 2:
        return {}
    return accuracy_by_label(*right_predictions(outputs, targets, layout))
