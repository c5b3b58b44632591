"""Outputs of a changed network against those of the network as it was, which is the reference: its teacher.

Classes, predictions and metrics are those of the main output. The error is the mean over all outputs in floating point,
and what is lost of the worst of the others is told beside it: no agreed loss of the main output ruins them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from attar._src.core.errors import AttarError, DataError
from attar._src.core.fields import main_output_name
from attar._src.measure.chance import Chance, is_ruined
from attar._src.measure.class_labels import class_labels
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.measure.difference import (
    SCORES,
    VALUES,
    Difference,
    are_shares,
    class_axis,
    decibels,
    divergence,
    kind_of_output,
    relative_noise,
)
from attar._src.measure.metric import Metric
from attar._src.measure.metric_change import (
    YES_OR_NO,
    MetricChange,
    constant_answer,
    metric_change,
    metric_of_file,
)
from attar._src.model.interface import flatten_outputs
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo

Outputs = NDArray[Any]
_RELATIVE = "% relative error"


@dataclass(frozen=True)
class ModelOutputs:
    """The outputs of a network for one batch.

    Attributes:
        main: what losses and metrics see.
        others: the others in floating point by name, in order. What integers mean, and how much of them may change, is
            not known: they are compared in reports.
    """

    main: Outputs
    others: Mapping[str, Outputs] = field(default_factory=dict)

    @classmethod
    def of(cls, outputs: Mapping[str, Outputs]) -> ModelOutputs:
        """Return those of outputs by name, in the order of the network's."""
        floating = {name: each.dtype.kind == "f" for name, each in outputs.items()}
        main = main_output_name(floating)
        return cls(outputs[main], {name: each for name, each in outputs.items() if name != main and floating[name]})


@dataclass(frozen=True)
class OutputError:
    """How far outputs are from the reference: the main output, but for ``error``.

    Attributes:
        error: mean squared difference over the variance of the reference about the mean of each channel: the inverse of
            the signal to noise, 0.01 for 20 dB. The mean over all outputs in floating point.
        signal_to_noise_db: the same in dB; None if the outputs are equal, or not finite.
        kl: mean over positions of ``KL(reference || changed)`` of the class probabilities, in nats; None without
            classes.
        changed: share of predictions that differ; None of outputs that are judged by their values.
        metric: of the changed outputs; None without labels.
        others: what each other output in floating point lost, by name: the share of its predictions that differ; of
            values the squared difference over their variance. Infinity of one that is not finite.
    """

    error: float
    signal_to_noise_db: float | None = None
    kl: float | None = None
    changed: float | None = None
    metric: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def worst_other(self) -> float | None:
        """The most that another output lost; None without any."""
        return max(self.others.values(), default=None)


class KnownOutputs(Protocol):
    """What examples tell of the right outputs: ``JudgedExamples`` of a stage, ``ComparedExamples`` of a file."""

    @property
    def metric(self) -> tuple[str, Metric] | None:
        """Its name and function; None for the usual one of such outputs and targets."""

    @property
    def layout(self) -> ClassLayout:
        """Class axis of the main output, and target that is not counted."""

    @property
    def given(self) -> bool:
        """Whether the user gave the labels."""


@dataclass(frozen=True)
class Labelled:
    """What is known of the right outputs.

    Attributes:
        metric: its name and function; None for the usual one of such outputs and targets.
        layout: class axis of the main output, and target that is not counted.
        given: whether the user gave the labels; others must be better than a constant answer to count.
        task: what the model is for, if known.
        classes: whether the outputs are known to be scores of classes.
    """

    metric: tuple[str, Metric] | None = None
    layout: ClassLayout = FROM_SHAPES
    given: bool = False
    task: str | None = None
    classes: bool = False

    @classmethod
    def of(cls, known: KnownOutputs, use: FileInfo | None) -> Labelled:
        """Return what is known of the right outputs: by the examples, and by what the file tells its user."""
        use = use or FileInfo()
        return cls(known.metric, known.layout, known.given, use.task, bool(use.class_names))


#: Nothing is known.
UNLABELLED = Labelled()


@dataclass(frozen=True)
class Judge:
    """Compares outputs of all batches with the reference.

    Attributes:
        wanted: the main output of the reference, of each batch.
        kind: of the output (``measure/difference.py``).
        axis: the class axis, None if there is none.
        targets: of each batch; empty without labels that fit.
        labelled: what is known of them.
        floating: the metric of the reference; None without labels.
        constant: what a constant answer reaches; None if the metric does not tell.
        unjudged: why there are targets and no metric; empty otherwise.
        others: the other outputs of the reference, of each batch.
        kinds: of the other outputs.
    """

    wanted: Sequence[Outputs]
    kind: str
    axis: int | None
    targets: Sequence[NDArray[Any]] = ()
    labelled: Labelled = UNLABELLED
    floating: MetricChange | None = None
    constant: Chance | None = None
    unjudged: str = ""
    others: Sequence[Mapping[str, Outputs]] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, program: fx.GraphModule, inputs: CalibrationInputs, name: str, labelled: Labelled) -> Judge:
        """Run the reference on all inputs; ``name`` is that of its main output."""
        with torch.no_grad():
            reference = [model_outputs(program(*batch)) for batch in inputs.batches]
        wanted = [each.main for each in reference]
        targets = [each.numpy() for each in inputs.targets]
        change, constant, why = None, None, ""
        if targets:
            try:
                pairs = [(each, each, own) for each, own in zip(wanted, targets, strict=True)]
                change = metric_change(labelled.metric, pairs, labelled.layout, given=labelled.given, noise=False)
                constant = constant_answer(labelled.metric, pairs, labelled.layout)
            except AttarError as error:
                why = str(error)
        yes_or_no = change is not None and change.name in YES_OR_NO
        labels = class_labels(wanted[0], targets[0], labelled.layout) if change is not None else None
        several = labels is not None and labels.shape == wanted[0].shape
        classes = labelled.classes or (labels is not None and labels.dtype.kind in "iu" and not several)
        task = "labels" if several and not yes_or_no else labelled.task
        kind = kind_of_output(wanted[0], name, task=task, classes=classes, yes_or_no=yes_or_no)
        axis = labelled.layout.axis
        if kind == SCORES and labels is not None and axis is None:
            axis = labelled.layout.settled(wanted[0].shape, labels.shape).axis
        axis = class_axis(wanted[0].shape, axis)
        others = [each.others for each in reference]
        kinds = {each: kind_of_output(array, each, main=False) for each, array in others[0].items()}
        return cls(wanted, kind, axis, targets if change else (), labelled, change, constant, why, others, kinds)

    @property
    def chance(self) -> Chance | None:
        """What a constant answer reaches, if the reference is no better; else None."""
        if self.constant is None or self.floating is None or not self.constant.explains(self.floating.floating):
            return None
        return self.constant

    @property
    def shares(self) -> bool:
        """Whether the reference has probabilities, not scores."""
        want = self.wanted[0]
        return self.axis is not None and are_shares(want) and bool(np.allclose(want.sum(self.axis), 1, atol=1e-3))

    @property
    def variance(self) -> float:
        """The variance of an element of the reference about the mean of its channel; its mean square without any."""
        seen = Difference(self.axis)
        for want in self.wanted:
            seen.add(np.zeros_like(want), want)
        noise = relative_noise(seen)
        return seen.squared / max(seen.elements, 1) / noise if noise else 1.0

    def judge(self, outputs: Iterable[ModelOutputs]) -> OutputError:
        """Return how far outputs of the same batches are from the reference."""
        seen, nats, positions, judged = Difference(self.axis), 0.0, 0, []
        beside = {name: Difference(class_axis(each.shape)) for name, each in (*self.others, {})[0].items()}
        for place, (made, want) in enumerate(zip(outputs, self.wanted, strict=True)):
            got = made.main
            seen.add(got, want)
            wanted = self.others[place].values() if beside else ()
            for difference, mine, other in zip(beside.values(), made.others.values(), wanted, strict=True):
                difference.add(mine, other)
            if self.kind == SCORES and self.axis is not None:
                each = divergence(got, want, self.axis, shares=self.shares)
                nats, positions = nats + float(each.sum()), positions + each.size
            if self.targets:
                judged.append((want, got, self.targets[place]))
        share = seen.equal_share(self.kind)
        noises = {name: relative_noise(each) for name, each in beside.items()}
        changes = {name: each.equal_share(self.kinds[name]) if each.finite else None for name, each in beside.items()}
        error = sum([relative_noise(seen), *noises.values()]) / (1 + len(noises))
        return OutputError(
            error=error,
            signal_to_noise_db=decibels(error),
            kl=nats / positions if positions else None,
            changed=None if share is None else 1 - share,
            metric=self._metric(judged),
            others={name: noises[name] if equal is None else 1 - equal for name, equal in changes.items()},
        )

    @property
    def unit(self) -> str:
        """What :meth:`points` counts, in words that follow a number."""
        if self.floating is not None and self.floating.better:
            return f"points of {self.floating.name}" if self.floating.better > 0 else f"% of {self.floating.name}"
        return _RELATIVE if self.kind == VALUES else "% of predictions"

    def demand_direction(self) -> None:
        """Refuse a metric that was asked for, of which it is not known whether more is better.

        Raises:
            DataError: it is not; the message has the attribute that tells it.
        """
        if self.floating is not None and not self.floating.better and self.labelled.metric is not None:
            name = self.floating.name
            raise DataError(
                f"metric {name}: whether more of it is better, or less, is not known, so that no drop can be counted; "
                f"give the function an attribute: {name}.larger_is_better = False for an error or a loss, else True"
            )

    def points(self, seen: OutputError) -> float:
        """Return the loss in percentage points: of the metric, else of changed predictions, else the relative error.

        A metric that is no share, such as a mean squared error, loses per cent of itself.

        Raises:
            DataError: it is not known whether more of the metric that was asked for is better.
        """
        self.demand_direction()
        if self.floating is not None and self.floating.better:
            if seen.metric is None:
                return math.inf
            loss = self.floating.better * (self.floating.floating - seen.metric)
            scale = 1.0 if self.floating.better > 0 else max(abs(self.floating.floating), 1e-12)
            return 100 * loss / scale
        return 100 * (math.sqrt(seen.error) if seen.changed is None else seen.changed)

    def ruins(self, seen: OutputError) -> bool:
        """Return whether most of what the reference knows is lost.

        It knows by how much its metric is better than that of a constant answer. Where that is not known: its
        predictions, or, of values, their variance. A reference that is no better than a constant answer has nothing to
        lose. So are files of which another output is (``is_ruined``).

        Example: of 91 % accuracy in ten classes 81 points can be lost, so that a file of 50 % is ruined; so is one that
        changes more than half of all predictions, where there are no labels.
        """
        if is_ruined(seen.worst_other):
            return True
        if self.floating is not None and self.floating.better and self.constant is not None:
            return self.constant.ruined(self.floating.floating, math.nan if seen.metric is None else seen.metric)
        return is_ruined(seen.error if seen.changed is None else seen.changed)

    def _metric(self, judged: Sequence[tuple[Outputs, Outputs, NDArray[Any]]]) -> float | None:
        if not judged:
            return None
        try:
            return metric_of_file(self.labelled.metric, judged, self.labelled.layout)
        except AttarError:  # a metric that is not finite, of outputs that are not
            return None


def model_outputs(outputs: Any) -> ModelOutputs:
    """Return the outputs of a program as arrays."""
    return ModelOutputs.of({name: each.detach().numpy(force=True) for name, each in flatten_outputs(outputs).items()})


def session_outputs(session: Session, batches: Iterable[Sequence[torch.Tensor]]) -> Iterator[ModelOutputs]:
    """Yield the outputs of a decoded file for each batch of inputs, which are in the order of its own.

    Raises:
        DataError: inputs do not fit the file.
    """
    names = [port.name for port in session.inputs]
    for batch in batches:
        yield ModelOutputs.of(session.run({name: each.numpy() for name, each in zip(names, batch, strict=True)}))
