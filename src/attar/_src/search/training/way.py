"""A way to train a small file: a list of stages as a user would write them, for a target."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

#: Stages of a recipe, as YAML has them.
Stages = list[dict[str, Any]]

#: Name of the model that teaches, of the module itself where another teaches, and of the one whose file counts.
TEACHER, ITSELF, STUDENT = "teacher", "itself", "student"
#: Bytes of a file beside codes, scales and vectors: graph, manifest, footer.
_REST = 600
#: Share of the file that scales, or vectors, may take before fewer are stored, or in fewer bits.
_SMALL = 0.05
#: Bytes of a scale in a file, about: short numbers that are coded together.
_SCALE = 1.5


@dataclass(frozen=True)
class TrainingTarget:
    """What a trained file should become, and what is known of the module.

    Attributes:
        max_bytes: of the file; None if its size does not count.
        macs: share of the multiplications to remove; None if time does not count.
        weights: elements of all weights.
        vectors: elements of biases and norms once these are folded.
        channels: output channels of all weights.
        layers: residual layers that can be removed.
        epochs: of a whole training.
        batch: examples of a step.
        optimizer: as a recipe has it, with the learning rate of a network that was trained before.
        activations: bits of what layers read; None for floating point.
        labels: whether the training examples have labels.
        keep: globs of layers that stay in floating point.
        others: name of the model from which outputs beside the main one are learned; empty where there are none.
    """

    max_bytes: int | None
    macs: float | None
    weights: int
    vectors: int
    channels: int
    layers: int
    epochs: int
    batch: int
    optimizer: Mapping[str, Any]
    activations: int | None = None
    labels: bool = True
    keep: tuple[str, ...] = ()
    others: str = ""

    @property
    def floats(self) -> int:
        """Bits of biases and norms: 16, or 8 where they would take much of the file."""
        return 8 if self.max_bytes is not None and 2 * self.vectors > _SMALL * self.max_bytes else 16

    @property
    def code_bytes(self) -> float:
        """Bytes that are left for the codes of weights."""
        assert self.max_bytes is not None
        return max(self.max_bytes - _REST - self.vectors * self.floats / 8, 1.0)

    @property
    def bits_per_weight(self) -> float:
        """Bits that a code may take on average; 8 if bytes do not count."""
        return 8.0 if self.max_bytes is None else 8 * self.code_bytes / self.weights

    def learning_rate(self, factor: float) -> dict[str, Any]:
        """Return the optimizer with another learning rate."""
        return {**self.optimizer, "lr": round(factor * self.optimizer["lr"], 6)}

    def distill(self, share: float) -> dict[str, Any]:
        """Return a stage that trains in floating point, with the share of the epochs."""
        return {
            "stage": "distill",
            "teacher": TEACHER,
            "epochs": max(math.ceil(share * self.epochs), 1),
            "batch": self.batch,
            "optimizer": self.learning_rate(1.5),
            **self._losses(),
        }

    def compress(self, **more: Any) -> dict[str, Any]:
        """Return the stage that ends in the file: distillation on learned grids under the budget of bytes."""
        budget: dict[str, Any] = {"size": 8.0, "bits": 8}
        if self.max_bytes is not None:
            shared = _SCALE * self.channels > _SMALL * self.max_bytes
            budget = {"max_bytes": self.max_bytes, "bits": 4, "floats": self.floats}
            budget |= {"granularity": "tensor"} if shared else {}
        return {
            "stage": "compress",
            "teacher": TEACHER,
            **budget,
            **({} if self.activations is None else {"activations": self.activations}),
            **({"keep": list(self.keep)} if self.keep else {}),
            "epochs": self.epochs,
            "batch": self.batch,
            "optimizer": self.learning_rate(1.0),
            **self._losses(),
            **more,
        }

    def _losses(self) -> dict[str, Any]:
        terms = [{"name": "other_outputs", "teacher": self.others}]
        return ({} if self.labels else {"alpha": 1.0, "beta": 0.0}) | ({"terms": terms} if self.others else {})


class TrainedWay(ABC):
    """A way to train a student of the same module.

    Attributes:
        name: in names of files and in tables.
        words: what it does, for documents and pages.
    """

    name: ClassVar[str]
    words: ClassVar[str]

    def suits(self, target: TrainingTarget) -> bool:
        """Return whether it is the way to begin with; others follow as they are registered."""
        return False

    @abstractmethod
    def stages(self, target: TrainingTarget) -> Stages | None:
        """Return the stages for a target; None where this way has nothing to do or cannot reach it."""
