"""The inputs of a stage's objectives: outputs and layers of the student and of its teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attar._src.core.errors import SpecError, UnknownName
from attar._src.measure.class_layout import ClassLayout
from attar._src.model.interface import flatten_outputs, main_output
from attar._src.model.taps import LayerTaps
from attar._src.train.batch import Batch
from attar._src.work.context import OpenTeacher, Teacher
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs
from attar._src.work.term import Term


@dataclass(frozen=True)
class TeacherAnswers:
    """Outputs of teachers for a batch: the main one by teacher; of those that terms look into also layers, and all."""

    outputs: Mapping[str, Tensor]
    features: Mapping[str, Mapping[str, Tensor]]
    every: Mapping[str, Mapping[str, Tensor]]


class InputCollector:
    """Collects what the terms of a stage read.

    Args:
        terms: the terms of the loss.
        learner: the student, with constraints attached.
        teachers: name of a model -> teacher; may be empty if nothing is left to train.
        layout: that of the recipe; the first batch whose shapes tell the class axis settles it.

    Attributes:
        features: paths of the student's layers that the terms read.
        teacher_features: name of a teacher -> paths of its layers that the terms read, none for all outputs alone.
    """

    def __init__(
        self, terms: Sequence[Term], learner: Learner, teachers: Mapping[str, Teacher], layout: ClassLayout
    ) -> None:
        self.features = tuple(dict.fromkeys(path for term in terms for path in term.features()))
        self.teacher_features: dict[str, tuple[str, ...]] = {}
        for name, paths in (pair for term in terms for pair in term.teacher_features().items()):
            self.teacher_features[name] = tuple(dict.fromkeys((*self.teacher_features.get(name, ()), *paths)))
        self.names = tuple(dict.fromkeys(name for term in terms for name in term.teachers()))
        self.teachers, self.layout = teachers, layout
        self.weights = learner.weight_view()

    @torch.no_grad()
    def ask(self, batch: Batch) -> TeacherAnswers:
        """Return the outputs of the teachers for a batch.

        Raises:
            SpecError: a teacher's layers cannot be read, or a layer does not exist.
        """
        outputs: dict[str, Tensor] = {}
        features: dict[str, Mapping[str, Tensor]] = {}
        every: dict[str, Mapping[str, Tensor]] = {}
        for name in self.names:
            teacher, layers = self.teachers[name], self.teacher_features.get(name)
            if layers is None:
                outputs[name] = teacher.outputs(batch)
                continue
            if not isinstance(teacher, OpenTeacher):
                raise SpecError(
                    f"teacher {name!r} is a file or a cache and has its main output only; give it as a program"
                )
            try:
                seen = teacher.look(batch, layers)
            except UnknownName as error:
                raise SpecError(f"teacher {name!r}: {error}") from error
            outputs[name], features[name], every[name] = seen.main, seen.layers, seen.every
        return TeacherAnswers(outputs, features, every)

    def collect(
        self, outputs: Any, taps: LayerTaps, batch: Batch, answers: TeacherAnswers, progress: float
    ) -> LossInputs:
        """Return the inputs of the objectives for the student's outputs on a batch."""
        every, main = flatten_outputs(outputs), main_output(outputs)
        inputs = LossInputs(
            main,
            tuple(every.values()),
            batch,
            answers.outputs,
            progress,
            taps.take(),
            answers.features,
            answers.every,
            self.weights,
            self.layout,
            tuple(every),
        )
        if batch.targets is not None:
            self.layout = self.layout.settled(main.shape, inputs.target_shape)
        return replace(inputs, layout=self.layout)
