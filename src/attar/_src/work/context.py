"""Contexts: what a stage gets when it runs and when it is tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from attar._src.artifact.packing import AUTO
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.measure.metric import Metric
from attar._src.train.batch import Batch, Feed
from attar._src.train.store import CheckpointStore
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import Calibration, FileInfo


class Teacher(Protocol):
    """A model from whose outputs another one learns."""

    def outputs(self, batch: Batch) -> torch.Tensor:
        """Return the main output for a batch, on the batch's device, without gradient."""


@dataclass(frozen=True)
class Look:
    """What a teacher shows of itself for a batch.

    Attributes:
        main: the main output, in float32 at least.
        every: all outputs by name.
        layers: path of a layer -> its value.
    """

    main: torch.Tensor
    every: Mapping[str, torch.Tensor]
    layers: Mapping[str, torch.Tensor]


@runtime_checkable
class OpenTeacher(Teacher, Protocol):
    """A teacher whose layers can be read: a program, not a file or a cache."""

    def look(self, batch: Batch, layers: Sequence[str]) -> Look:
        """Return the outputs for a batch and the values of ``layers`` by path, without gradient.

        Raises:
            UnknownName: there is no such layer.
        """


@dataclass(frozen=True)
class JudgedExamples:
    """Examples on which a stage measures what a file loses, and what is known of the right outputs.

    Attributes:
        inputs: that calibration does not see, with targets if there are any; None to hold a part of calibration out.
        metric: its name and function; None for the usual one of such outputs and targets.
        layout: class axis of the main output, and target that is not counted.
        given: whether the user gave the labels; others must be better than a constant answer to count.
    """

    inputs: Calibration | None = None
    metric: tuple[str, Metric] | None = None
    layout: ClassLayout = FROM_SHAPES
    given: bool = False


#: Nothing is known.
UNKNOWN = JudgedExamples()


@dataclass(frozen=True)
class Context:
    """What a run gives to a stage.

    Attributes:
        calibration: some hundred real inputs, of each graph by name if there are several; named batches have the
            arguments of all models (see ``of``).
        seed: of everything random in this stage.
        use: what the file will tell its user, which takes some of its bytes; None if that is not known.
        coder: entropy coder of the file.
        judged: on what a stage measures the loss of a file.
    """

    calibration: Calibration
    seed: int = 0
    use: FileInfo | None = None
    coder: str = AUTO
    judged: JudgedExamples = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class TrainingContext(Context):
    """What a run gives to a stage that trains.

    Attributes:
        fabric: launched; devices, ranks and precision come from it.
        feed: batch size over all ranks -> the training examples.
        validation: held-out training examples, or None; choices are made on them alone.
        metric: outputs and targets of a whole set as arrays -> score.
        store: the checkpoints of this stage; training continues from the latest.
        log: takes one row of numbers after every epoch.
        layout: class axis of outputs, and target to ignore.
    """

    calibration: CalibrationInputs
    fabric: Fabric
    feed: Callable[[int], Feed]
    validation: Feed | None
    metric: Callable[[NDArray[Any], NDArray[np.int64] | NDArray[np.float32]], float]
    metric_name: str
    teachers: Mapping[str, Teacher]
    store: CheckpointStore
    log: Callable[[Mapping[str, Any]], None]
    layout: ClassLayout = FROM_SHAPES


@dataclass(frozen=True)
class Trial:
    """What preflight gives to a stage: a few training examples, untrained teachers by name, and the class layout."""

    batch: Batch
    teachers: Mapping[str, Teacher]
    layout: ClassLayout = FROM_SHAPES
