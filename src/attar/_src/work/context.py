"""Contexts: what a stage is given when it runs and when it is tried; and teachers, as stages see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from attar._src.train.batch import Batch, Feed
from attar._src.train.store import CheckpointStore
from attar._src.work.compressed_model import Calibration, CalibrationInputs


class Teacher(Protocol):
    """A model whose outputs another one learns from."""

    def outputs(self, batch: Batch) -> torch.Tensor:
        """Return the main output for a batch, on the batch's device, without gradient."""
        ...


@runtime_checkable
class OpenTeacher(Teacher, Protocol):
    """A teacher that can be looked into: a program, not a file or what was kept of one."""

    def look(self, batch: Batch, layers: Sequence[str]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Return the main output for a batch and the values of ``layers`` by path, without gradient.

        Raises:
            UnknownName: there is no such layer.
        """
        ...


@dataclass(frozen=True)
class Context:
    """What a run gives to a stage.

    Attributes:
        calibration: some hundred real inputs, of each graph by name if there are several. Batches with names have
            those of every model; ``of`` picks from them.
        seed: of this stage; everything random in it follows from this number.
    """

    calibration: Calibration
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingContext(Context):
    """What a run gives to a stage that trains.

    Attributes:
        fabric: launched; devices, ranks and precision come from it.
        feed: batch size over all ranks -> the training examples.
        validation: examples held out of the training examples, or None. Choices look at nothing else.
        metric: outputs and targets of a whole set as arrays -> score.
        metric_name: the metric's name in logs.
        teachers: name of a model -> teacher.
        store: the checkpoints of this stage; training continues from the latest.
        log: takes one row of figures after every epoch.
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


@dataclass(frozen=True)
class Trial:
    """What preflight gives to a stage that is tried before anything is trained.

    Attributes:
        batch: a few training examples.
        teachers: name of a model -> the untrained model as a teacher.
    """

    batch: Batch
    teachers: Mapping[str, Teacher]
