"""Fidelity: comparison of the outputs of a decoded file with those of the floating-point module, on real inputs.

Parity asks whether the file computes what was decided; fidelity asks what that costs.

    floating module --> outputs --+
                                  |--> Difference of each output, metric of both --> figures, warnings
    decoded file    --> outputs --+
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray

from attar._src.core.errors import AttarError, DataError
from attar._src.core.progress import track
from attar._src.deploy.parity import EXAMPLES, output_arrays
from attar._src.deploy.tolerance import Tolerance
from attar._src.measure.class_labels import class_labels
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.measure.difference import (
    DECISIONS,
    INTEGERS,
    SCORES,
    Difference,
    kind_of_output,
)
from attar._src.measure.metric import Metric, judging_metric
from attar._src.measure.metric_change import YES_OR_NO, MetricChange, metric_change
from attar._src.runtime.session import Session
from attar._src.train.inputs import as_tensor
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo

#: Elements of the main output that are kept for the metric: 64 million, 256 MB.
_KEPT = 1 << 26
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
        layout: class axis of the main output, and target that is not counted.
        given: whether the user gave the labels for the comparison. Others, which the data bring along, may be no labels
            of this module (the class of an image, of an autoencoder), and count if it is better than a constant answer.
    """

    inputs: CalibrationInputs
    targets: Sequence[torch.Tensor | None] = ()
    metric: tuple[str, Metric] | None = None
    layout: ClassLayout = FROM_SHAPES
    given: bool = True

    def with_targets(self) -> CalibrationInputs:
        """Return the inputs with those targets that are there."""
        return replace(self.inputs, targets=tuple(each for each in self.targets if each is not None))

    def of(self, index: int, count: int) -> NDArray[Any] | None:
        """Return the first ``count`` targets of the batch at ``index``; None without labels."""
        found = self.targets[index] if index < len(self.targets) else None
        return None if found is None else found[:count].numpy()

    def class_axis(self, output: NDArray[Any], targets: NDArray[Any] | None) -> int | None:
        """Return the class axis of the main output, if it is given or the labels tell it."""
        return self.layout.settled(output.shape, None if targets is None else targets.shape).axis


@dataclass(frozen=True)
class Fidelity:
    """What a file lost against the floating-point module.

    Attributes:
        compared_with: the floating module in words.
        outputs: name of an output -> its kind (``measure/difference.py``) and the difference.
        main: name of the output that the metric judges.
        unjudged: why there are targets and no metric; empty otherwise.
        trained_since: as in :class:`Floating`.
    """

    compared_with: str
    examples: int
    outputs: Mapping[str, tuple[str, Difference]]
    main: str
    metric: MetricChange | None = None
    unjudged: str = ""
    trained_since: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        found: dict[str, Any] = {"compared_with": self.compared_with, "examples": self.examples}
        found["trained_since"] = self.trained_since
        found["outputs"] = {name: seen.figures(kind) for name, (kind, seen) in self.outputs.items()}
        return found | ({"metric": vars(self.metric) | {"output": self.main}} if self.metric else {})

    def losses(self, tolerance: Tolerance) -> dict[str, str]:
        """Return output -> its loss in words, as far as it is above the tolerance; ``""`` is the metric's."""
        found = {"": metric_loss(self.metric, tolerance)} if self.metric else {}
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
            axis = examples.class_axis(want, targets) if name == main else None
            outputs.setdefault(name, Difference(axis)).add(got[name], want)
        count += own
        if targets is not None and kept < _KEPT:
            judged.append((wanted[main], got[main], targets))
            kept += got[main].size
    if not count:
        return None
    change, unjudged = _judge(examples, judged)
    labels = judged[0][2] if judged and (examples.given or change) else None
    kinds = _kinds(first, main, use, labels, change)
    return Fidelity(
        floating.what,
        count,
        {name: (kinds[name], seen) for name, seen in outputs.items()},
        main,
        change,
        unjudged,
        floating.trained_since,
    )


def _judge(examples: ComparedExamples, judged: Sequence[_Judged]) -> tuple[MetricChange | None, str]:
    """Return the change of the metric, or why there is none although there are targets."""
    if not judged:
        return None, ""
    try:
        return metric_change(examples.metric, judged, examples.layout, given=examples.given), ""
    except AttarError as error:
        return None, str(error)


def _kinds(
    wanted: Mapping[str, NDArray[Any]],
    main: str,
    use: FileInfo,
    targets: NDArray[Any] | None,
    change: MetricChange | None,
) -> dict[str, str]:
    """Return the kind of each output; an output with a target for each element has no classes to choose from."""
    yes_or_no = change is not None and change.name in YES_OR_NO
    if targets is not None and not yes_or_no:
        targets = class_labels(wanted[main], targets)
    several = targets is not None and targets.shape == wanted[main].shape
    classes = bool(use.class_names) or (targets is not None and targets.dtype.kind in "iu")
    task = "labels" if several else use.task
    return {
        name: kind_of_output(want, name, main=name == main, task=task, classes=classes, yes_or_no=yes_or_no)
        for name, want in wanted.items()
    }


def labelled_examples(
    inputs: CalibrationInputs, labels: Any, metric: Any, layout: ClassLayout = FROM_SHAPES
) -> ComparedExamples:
    """Return the inputs with their labels, an array ``(N, ...)`` in the order of the examples.

    Args:
        inputs: batches of the first examples of the data.
        labels: of all examples; None for those that the data bring along, if there are any.
        metric: as :func:`attar.quantize` takes it; None for the usual one of such outputs and labels.
        layout: class axis of the main output, and label that is not counted.

    Raises:
        DataError: there are fewer labels than examples.
    """
    found = judging_metric(metric, layout)
    if labels is None:
        return ComparedExamples(inputs, inputs.targets, found, layout, given=False)
    targets = as_tensor(labels, "labels")
    targets = targets.float() if targets.is_floating_point() else targets.long()
    if len(targets) < inputs.examples:
        raise DataError(f"{len(targets)} labels for {inputs.examples} examples; give one for each, in their order")
    return ComparedExamples(
        inputs, targets[: inputs.examples].split([inputs.count(batch) for batch in inputs.batches]), found, layout
    )


def metric_loss(change: MetricChange, tolerance: Tolerance) -> str:
    """Return in words how much worse the file is; empty within the tolerance, or if the direction is unknown."""
    worse = change.better * (change.floating - change.file)
    allowed = tolerance.metric if change.better > 0 else tolerance.error * abs(change.floating)
    if not change.better or worse <= max(allowed, 2 * (change.standard_error or 0.0)):
        return ""
    before, after = f"{change.floating:.4g} with the floating module", f"{change.file:.4g} with the file"
    return f"{change.name} goes from {before} to {after} on {change.examples} examples"
