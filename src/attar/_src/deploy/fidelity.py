"""Fidelity: comparison of the outputs of a decoded file with those of the floating-point module, on real inputs.

Parity asks whether the file computes what was decided; fidelity asks what that costs.

    floating module --> outputs --+
                                  |--> Difference of each output, metric of both --> figures, warnings
    decoded file    --> outputs --+
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attar._src.core.errors import AttarError, DataError
from attar._src.core.progress import track
from attar._src.deploy.parity import EXAMPLES, output_arrays
from attar._src.deploy.tolerance import Tolerance
from attar._src.measure.difference import INTEGERS, SCORES, Difference, kind_of_output
from attar._src.measure.metric import METRICS, Metric, find
from attar._src.runtime.session import Session
from attar._src.train.inputs import as_tensor
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo

#: Elements of the main output that are kept for the metric: 64 million, 256 MB.
_KEPT = 1 << 26
#: The noise of a metric is estimated from this many parts of the examples,
_PARTS = 10
#: each of at least so many.
_PART = 4


@dataclass(frozen=True)
class Floating:
    """The floating-point module with which a file is compared.

    Attributes:
        what: in words, for the report.
        module: takes the tensors of a batch by position, in float32.
        outputs: its outputs on the first batches, as far as they are known.
        trained_since: whether the model was trained after it, so that other outputs are no loss in themselves.
    """

    what: str
    module: Callable[..., Any] | None = None
    outputs: Sequence[Sequence[NDArray[Any]]] = ()
    trained_since: bool = False

    def __call__(self, index: int, batch: tuple[torch.Tensor, ...]) -> Sequence[NDArray[Any]] | None:
        """Return the outputs on the batch at ``index``; None if they are not known."""
        if index < len(self.outputs):
            return self.outputs[index]
        if self.module is None:
            return None
        with torch.no_grad():
            return output_arrays(self.module(*batch))


@dataclass(frozen=True)
class ComparedExamples:
    """Real inputs for the comparison, the targets of each batch (empty or None without labels), and the metric."""

    inputs: CalibrationInputs
    targets: Sequence[torch.Tensor | None] = ()
    metric: tuple[str, Metric] | None = None

    def of(self, index: int, count: int) -> NDArray[Any] | None:
        """Return the first ``count`` targets of the batch at ``index``; None without labels."""
        found = self.targets[index] if index < len(self.targets) else None
        return None if found is None else found[:count].numpy()


@dataclass(frozen=True)
class MetricChange:
    """A metric of the floating module and of the file on the same examples.

    Attributes:
        better: 1 if more is better, -1 if less is, 0 if that is not known.
        standard_error: of ``file - floating``; None with too few examples.
    """

    name: str
    floating: float
    file: float
    examples: int
    better: int
    standard_error: float | None

    def loss(self, tolerance: Tolerance) -> str:
        """Return in words how much worse the file is; empty within the tolerance, or if the direction is unknown."""
        worse = self.better * (self.floating - self.file)
        allowed = tolerance.metric if self.better > 0 else tolerance.error * abs(self.floating)
        if not self.better or worse <= max(allowed, 2 * (self.standard_error or 0.0)):
            return ""
        before, after = f"{self.floating:.4g} with the floating module", f"{self.file:.4g} with the file"
        return f"{self.name} goes from {before} to {after} on {self.examples} examples"


@dataclass(frozen=True)
class Fidelity:
    """What a file lost against the floating-point module.

    Attributes:
        compared_with: the floating module in words.
        outputs: name of an output -> its kind (``measure/difference.py``) and the difference.
        trained_since: as in :class:`Floating`.
    """

    compared_with: str
    examples: int
    outputs: Mapping[str, tuple[str, Difference]]
    metric: MetricChange | None = None
    trained_since: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        found: dict[str, Any] = {"compared_with": self.compared_with, "examples": self.examples}
        found["trained_since"] = self.trained_since
        found["outputs"] = {name: seen.figures(kind) for name, (kind, seen) in self.outputs.items()}
        return found | ({"metric": vars(self.metric)} if self.metric else {})

    def losses(self, tolerance: Tolerance) -> dict[str, str]:
        """Return output -> its loss in words, as far as it is above the tolerance; ``""`` is the metric's."""
        found = {"": self.metric.loss(tolerance)} if self.metric else {}
        if not self.trained_since:
            found |= {name: self._loss(name, tolerance) for name in self.outputs}
        return {name: loss for name, loss in found.items() if loss}

    def _loss(self, name: str, tolerance: Tolerance) -> str:
        kind, seen = self.outputs[name]
        of = f"of output {name!r} " if len(self.outputs) > 1 else ""
        if kind in (SCORES, INTEGERS):
            least = tolerance.equal_predictions
            # Of few examples, as many may differ by chance.
            chance = 2 * math.sqrt(least * (1 - least) / max(self.examples, 1))
            what, share = (
                ("predictions", seen.equal_predictions) if kind == SCORES else ("integers", seen.equal_elements)
            )
            if share is not None and share < least - chance:
                near = f"{share:.1%} of the {what} {of}equal those of the floating module on {self.examples} examples"
                return f"{near} ({least:.0%} are expected)"
        return "" if kind == INTEGERS else self._noise(of, kind, seen, tolerance.signal_to_noise_db)

    def _noise(self, of: str, kind: str, seen: Difference, least: float) -> str:
        on = f"against the floating module on {self.examples} examples"
        # Where one class always wins, equal predictions say nothing.
        least = min(least, 0.0) if kind == SCORES else least
        decibel = seen.signal_to_noise_db
        if decibel is not None:
            low = decibel < least
            return f"the signal to noise {of}is {decibel:.1f} dB {on} ({least:g} dB are expected)" if low else ""
        # An output that does not vary has no signal but its own size.
        error, allowed = seen.relative_error or 0.0, 10 ** (-least / 20)
        return f"the relative error {of}is {error:.1%} {on} ({allowed:.1%} is allowed)" if error > allowed else ""


def compare_with_floating(
    session: Session, floating: Floating, use: FileInfo, examples: ComparedExamples
) -> Fidelity | None:
    """Run a decoded file and the floating-point module on the same real inputs and compare their outputs.

    Args:
        session: the decoded file.
        floating: the module.
        use: what the file tells its user; task and class names decide which outputs have scores.
        examples: the inputs, and targets if there are any.

    Returns:
        The figures; None if no output of the module is known.
    """
    names, main = [port.name for port in session.inputs], session.main_output
    outputs: dict[str, tuple[str, Difference]] = {}
    judged: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    count = kept = 0
    for index, batch in enumerate(track(examples.inputs.first(EXAMPLES).batches, "comparing with floating point")):
        found = floating(index, batch)
        if found is None:
            break
        got = session.run({name: tensor.numpy() for name, tensor in zip(names, batch, strict=True)})
        wanted = dict(zip(got, found, strict=True))
        own = examples.inputs.count(batch)
        targets = examples.of(index, own)
        outputs = outputs or {name: (kind, Difference()) for name, kind in _kinds(wanted, main, use, targets).items()}
        for name, want in wanted.items():
            outputs[name][1].add(got[name], want)
        count += own
        if targets is not None and kept < _KEPT:
            judged.append((wanted[main], got[main], targets))
            kept += got[main].size
    change = _metric_change(examples.metric, judged) if examples.metric and judged else None
    return Fidelity(floating.what, count, outputs, change, floating.trained_since) if count else None


def _kinds(
    wanted: Mapping[str, NDArray[Any]], main: str, use: FileInfo, targets: NDArray[Any] | None
) -> dict[str, str]:
    """Return the kind of each output; an output with a target for each element has no classes to choose from."""
    several = targets is not None and targets.shape == wanted[main].shape
    classes = bool(use.class_names) or (targets is not None and targets.dtype.kind in "iu")
    return {
        name: kind_of_output(want, name, main=name == main, task="labels" if several else use.task, classes=classes)
        for name, want in wanted.items()
    }


def labelled_examples(inputs: CalibrationInputs, labels: Any, metric: str | None) -> ComparedExamples:
    """Return the inputs with their labels, an array ``(N, ...)`` in the order of the examples.

    Args:
        inputs: batches of the first examples of the data.
        labels: of all examples, or None.
        metric: its name; without a registered one, accuracy of integers and mean squared error of others.

    Raises:
        DataError: there are fewer labels than examples.
    """
    if labels is None:
        return ComparedExamples(inputs)
    targets = as_tensor(labels, "labels")
    targets = targets.float() if targets.is_floating_point() else targets.long()
    if len(targets) < inputs.examples:
        raise DataError(f"{len(targets)} labels for {inputs.examples} examples; give one for each, in their order")
    usual = "mean_squared_error" if targets.is_floating_point() else "accuracy"
    found = find(metric if metric is not None and metric in METRICS else usual)
    return ComparedExamples(
        inputs, targets[: inputs.examples].split([inputs.count(batch) for batch in inputs.batches]), found
    )


def _metric_change(
    metric: tuple[str, Metric], judged: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]
) -> MetricChange | None:
    """Return a metric of outputs of the floating module and of the file, by batch with targets; None if it fails."""
    name, function = metric
    try:
        floating, file, targets = (np.concatenate(each) for each in zip(*judged, strict=True))
        values = function(floating, targets), function(file, targets)
    except (AttarError, ValueError):
        # Lengths that differ, or targets of another form: the outputs are compared all the same.
        return None
    if not np.isfinite(values).all():
        return None
    more = getattr(function, "larger_is_better", None)
    noise = _standard_error(function, floating, file, targets)
    return MetricChange(name, *values, len(targets), 0 if more is None else 1 if more else -1, noise)


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
