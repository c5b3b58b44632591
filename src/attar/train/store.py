"""Store: the checkpoints of one stage; tensors as safetensors, the rest as JSON beside them, each written whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Checkpoint:
    """Where a stage is.

    Attributes:
        epoch: how many epochs are complete.
        tensors: by name; parameters, buffers, constraints, optimizer.
        facts: JSON values: history, scalars of the optimizer.
        done: whether the stage is.
    """

    epoch: int
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]
    done: bool = False


@dataclass(frozen=True)
class Store:
    """A folder with the latest checkpoint of one stage."""

    folder: Path

    def latest(self) -> Checkpoint | None:
        """Return the latest complete checkpoint, None where there is none yet.

        Raises:
            AttarError: a checkpoint is there and damaged.
        """
        raise NotImplementedError

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whole, then remove the one before it.

        Raises:
            AttarError: the disk is full or the folder cannot be written; the checkpoint before is still there.
        """
        raise NotImplementedError
