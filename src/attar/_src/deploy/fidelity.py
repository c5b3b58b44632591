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
from attar._src.measure.binary import F1, BinaryAccuracy
from attar._src.measure.class_labels import class_labels
from attar._src.measure.difference import (
    DECISIONS,
    INTEGERS,
    SCORES,
    Difference,
    are_shares,
    kind_of_output,
)
from attar._src.measure.metric import METRICS, Metric, chance_of, find, usual_metric
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
#: Metrics of outputs that mean yes or no each.
_YES_OR_NO = (BinaryAccuracy.name, F1.name)
#: Outputs of the floating module and of the file, and targets, of one batch.
_Judged = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


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
    """Real inputs for the comparison, and what is known of the right outputs.

    Attributes:
        targets: of each batch; empty or None without labels.
        metric: its name and function; None for the usual one of such outputs and targets.
        given: whether the user gave the labels for the comparison. Others, which the data bring along, may be no labels
            of this module (the class of an image, of an autoencoder), and count if it is better than a constant answer.
    """

    inputs: CalibrationInputs
    targets: Sequence[torch.Tensor | None] = ()
    metric: tuple[str, Metric] | None = None
    given: bool = True

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
        main: name of the output that the metric judges.
        trained_since: as in :class:`Floating`.
        unmeasured: why there is no metric although labels were given for it; else empty.
    """

    compared_with: str
    examples: int
    outputs: Mapping[str, tuple[str, Difference]]
    main: str
    metric: MetricChange | None = None
    trained_since: bool = False
    unmeasured: str = ""

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
        least, share = tolerance.equal_predictions, seen.equal_share(kind)
        # Of few examples, as many may differ by chance.
        chance = 2 * math.sqrt(least * (1 - least) / max(self.examples, 1))
        if share is not None and share < least - chance:
            what = "integers" if kind == INTEGERS else "predictions"
            near = f"{share:.1%} of the {what} {of}equal those of the floating module on {self.examples} examples"
            return f"{near} ({least:.0%} are expected)"
        return "" if kind == INTEGERS else self._noise(of, kind, seen, tolerance.signal_to_noise_db)

    def _noise(self, of: str, kind: str, seen: Difference, least: float) -> str:
        on = f"against the floating module on {self.examples} examples"
        # Where one class always wins, equal predictions say nothing.
        least = min(least, 0.0) if kind in (SCORES, DECISIONS) else least
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
    outputs: dict[str, Difference] = {}
    first: Mapping[str, NDArray[Any]] = {}
    judged: list[_Judged] = []
    count = kept = 0
    for index, batch in enumerate(track(examples.inputs.first(EXAMPLES).batches, "comparing with floating point")):
        found = floating(index, batch)
        if found is None:
            break
        got = session.run({name: tensor.numpy() for name, tensor in zip(names, batch, strict=True)})
        wanted = dict(zip(got, found, strict=True))
        own = examples.inputs.count(batch)
        targets = examples.of(index, own)
        first = first or wanted
        for name, want in wanted.items():
            outputs.setdefault(name, Difference()).add(got[name], want)
        count += own
        if targets is not None and kept < _KEPT:
            judged.append((wanted[main], got[main], targets))
            kept += got[main].size
    if not count:
        return None
    change, unmeasured = _metric_change(examples, judged) if judged else (None, "")
    labels = judged[0][2] if judged and (examples.given or change) else None
    kinds = _kinds(first, main, use, labels, change)
    return Fidelity(
        floating.what,
        count,
        {name: (kinds[name], seen) for name, seen in outputs.items()},
        main,
        change,
        floating.trained_since,
        unmeasured,
    )


def _kinds(
    wanted: Mapping[str, NDArray[Any]],
    main: str,
    use: FileInfo,
    targets: NDArray[Any] | None,
    change: MetricChange | None,
) -> dict[str, str]:
    """Return the kind of each output; an output with a target for each element has no classes to choose from."""
    yes_or_no = change is not None and change.name in _YES_OR_NO
    if targets is not None and not yes_or_no:
        targets = class_labels(wanted[main], targets)
    several = targets is not None and targets.shape == wanted[main].shape
    classes = bool(use.class_names) or (targets is not None and targets.dtype.kind in "iu")
    task = "labels" if several else use.task
    return {
        name: kind_of_output(want, name, main=name == main, task=task, classes=classes, yes_or_no=yes_or_no)
        for name, want in wanted.items()
    }


def labelled_examples(inputs: CalibrationInputs, labels: Any, metric: str | None) -> ComparedExamples:
    """Return the inputs with their labels, an array ``(N, ...)`` in the order of the examples.

    Args:
        inputs: batches of the first examples of the data.
        labels: of all examples; None for those that the data bring along, if there are any.
        metric: its name; without a registered one, the usual one of such outputs and labels.

    Raises:
        DataError: there are fewer labels than examples.
    """
    found = find(metric) if metric is not None and metric in METRICS else None
    if labels is None:
        return ComparedExamples(inputs, inputs.targets, found, given=False)
    targets = as_tensor(labels, "labels")
    targets = targets.float() if targets.is_floating_point() else targets.long()
    if len(targets) < inputs.examples:
        raise DataError(f"{len(targets)} labels for {inputs.examples} examples; give one for each, in their order")
    return ComparedExamples(
        inputs, targets[: inputs.examples].split([inputs.count(batch) for batch in inputs.batches]), found
    )


def _metric_change(examples: ComparedExamples, judged: Sequence[_Judged]) -> tuple[MetricChange | None, str]:
    """Return a metric of outputs of the floating module and of the file, by batch with targets.

    None if it fails, with the reason if the labels were given for it, or if the labels came with the data and the
    floating module knows nothing of them.
    """
    try:
        floating, file, targets = (np.concatenate(each) for each in zip(*judged, strict=True))
        name, function = examples.metric or find(usual_metric(floating, targets))
        if name in _YES_OR_NO and are_shares(floating):
            # The metrics take logits, whose threshold is 0.
            floating, file = floating - 0.5, file - 0.5
        values = function(floating, targets), function(file, targets)
        chance = None if examples.given else chance_of(function, floating, targets)
    except (AttarError, ValueError) as error:
        # Lengths that differ, or targets of another form: the outputs are compared all the same.
        return None, str(error) if examples.given else ""
    if not np.isfinite(values).all():
        return None, f"{name} is {values[0]:g} of the floating module and {values[1]:g} of the file"
    if chance is not None and chance.explains(values[0]):
        return None, ""
    more = getattr(function, "larger_is_better", None)
    noise = _standard_error(function, floating, file, targets)
    better = 0 if more is None else 1 if more else -1
    return MetricChange(name, *values, len(targets), better, noise), ""


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
