"""Context: what a run lends to a stage that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from attar._src.core.spec import Spec
from attar._src.train.batch import Batch, Feed
from attar._src.train.store import CheckpointStore
from attar._src.work.compressed_model import CalibrationInputs
from attar._src.work.learner import Learner


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
    """What a run lends to a stage.

    Attributes:
        fabric: launched; devices, ranks and precision come from it.
        feed: batch size over all ranks -> the training examples.
        validation: held out of the training examples, or None where there are none; choices look at nothing else.
        metric: outputs and targets of a whole set as arrays -> how good they are.
        metric_name: what logs call it.
        teachers: name of a model -> its outputs.
        calibration: real inputs, some hundreds; of batches with names those of every model, which ``of`` picks from.
        seed: of this stage; everything random in it follows from this.
        store: where this stage keeps its checkpoints, and what it goes on from.
        log: takes one row of figures after every epoch.
    """

    fabric: Fabric
    feed: Callable[[int], Feed]
    validation: Feed | None
    metric: Callable[[NDArray[Any], NDArray[np.int64] | NDArray[np.float32]], float]
    metric_name: str
    teachers: Mapping[str, Teacher]
    calibration: CalibrationInputs
    seed: int
    store: CheckpointStore
    log: Callable[[Mapping[str, Any]], None]


class Training(Spec):
    """A stage that trains: it changes the learner's module and what that is held to.

    Attributes:
        needs: what it cannot do without, of ``labels`` and ``gradients``.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    stage: str

    def required(self) -> frozenset[str]:
        """Return what this stage needs, as it is configured: ``labels``, ``gradients``."""
        return self.needs

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models it learns from."""
        return ()

    def budget(self) -> float | None:
        """Return the bits per weight it keeps the file at or below, None where it looks at none."""
        return None

    def attach(self, learner: Learner) -> None:
        """Put this stage's constraints on the learner without training: what resuming after the stage does."""

    def run(self, learner: Learner, context: Context) -> None:
        """Attach, train from where ``context.store`` left off, settle, and add to the learner's record."""
        raise NotImplementedError
