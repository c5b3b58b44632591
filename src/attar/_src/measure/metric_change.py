"""Change of a metric: of the outputs of a file against those of the floating-point module, on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import AttarError, DataError
from attar._src.measure.binary import F1, BinaryAccuracy
from attar._src.measure.chance import Chance
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.difference import are_shares
from attar._src.measure.metric import Metric, chance_of, find, join_batches, usual_metric

#: Metrics of outputs that mean yes or no each.
YES_OR_NO = (BinaryAccuracy.name, F1.name)
#: The noise of a metric is estimated from this many parts of the examples, for which it is called twice each, which
#: takes about as long as two calls for all of them,
_PARTS = 10
#: each of at least so many.
_PART = 4


@dataclass(frozen=True)
class MetricChange:
    """A metric of the floating module and of the file on the same examples.

    Attributes:
        better: 1 if more is better, -1 if less is, 0 if that is not known.
        standard_error: of ``file - floating``; None with too few examples, or where it was not asked for.
    """

    name: str
    floating: float
    file: float
    examples: int
    better: int
    standard_error: float | None


def metric_change(
    metric: tuple[str, Metric] | None,
    batches: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    layout: ClassLayout,
    *,
    given: bool,
    noise: bool = True,
) -> MetricChange:
    """Return a metric of outputs of the floating module and of the file, by batch with targets.

    Args:
        metric: its name and function; None for the usual one of such outputs and targets.
        batches: outputs of the module, outputs of the file, targets.
        layout: class axis of the outputs, and target that is not counted.
        given: whether the targets are known to be labels of this module; others must be better than a constant answer.
        noise: whether the standard error is needed, for which the metric is called 20 times more.

    Raises:
        AttarError: the targets do not fit, with the reason.
    """
    (floating, file, targets), (name, function) = _judged(metric, batches, layout)
    before, after = function(floating, targets), function(file, targets)
    if not np.isfinite((before, after)).all():
        raise DataError(f"{name} is {before:.4g} with the floating module and {after:.4g} with the file")
    chance = None if given else chance_of(function, floating, targets)
    if chance is not None and chance.explains(before):
        raise DataError(
            f"{name} is {before:.4g} with the floating module, no better than {chance.answer} each time "
            f"({chance.value:.4g}); give labels=, if they are those of the module"
        )
    more = getattr(function, "larger_is_better", None)
    error = _standard_error(function, floating, file, targets) if noise else None
    return MetricChange(name, before, after, len(targets), 0 if more is None else 1 if more else -1, error)


def metric_of_file(
    metric: tuple[str, Metric] | None,
    batches: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    layout: ClassLayout,
) -> float:
    """Return the metric of the file alone, for which it is called once; arguments as of :func:`metric_change`.

    Raises:
        AttarError: it is not finite.
    """
    (_, file, targets), (name, function) = _judged(metric, batches, layout)
    if not np.isfinite(found := function(file, targets)):
        raise DataError(f"{name} is {found:.4g} with the file")
    return found


def constant_answer(
    metric: tuple[str, Metric] | None,
    batches: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    layout: ClassLayout,
) -> Chance | None:
    """Return what a constant answer reaches; None if the metric does not tell. Arguments as of
    :func:`metric_change`."""
    (floating, _, targets), (_, function) = _judged(metric, batches, layout)
    return chance_of(function, floating, targets)


def _judged(
    metric: tuple[str, Metric] | None,
    batches: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    layout: ClassLayout,
) -> tuple[tuple[NDArray[Any], NDArray[Any], NDArray[Any]], tuple[str, Metric]]:
    """Return outputs of the module, those of the file, and targets, as the metric takes them; and the metric."""
    floating, file, targets = join_batches(batches, layout)
    name, function = metric or find(usual_metric(floating, targets, layout), layout)
    if name in YES_OR_NO and are_shares(floating):
        # The metrics take logits, whose threshold is 0.
        floating, file = floating - 0.5, file - 0.5
    return (floating, file, targets), (name, function)


def _standard_error(metric: Metric, floating: NDArray[Any], file: NDArray[Any], targets: NDArray[Any]) -> float | None:
    """Return the standard error of the change of a metric, from the changes on disjoint parts of the examples."""
    if len(targets) < _PARTS * _PART:
        return None
    parts = [slice(start, None, _PARTS) for start in range(_PARTS)]
    try:
        changes = [metric(file[part], targets[part]) - metric(floating[part], targets[part]) for part in parts]
    except AttarError:
        return None
    return float(np.std(changes, ddof=1) / np.sqrt(_PARTS)) if np.isfinite(changes).all() else None
