"""Batch and Feed: what a step sees, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Batch:
    """Examples of one step.

    Attributes:
        inputs: the module's positional inputs, each ``(n, ...)``.
        targets: what the outputs are judged by, ``(n, ...)``, or None where there are no labels.
        index: int64 ``(n,)``: which examples of the set these are; None where a loader does not say.
        variant: int64 ``(n,)``: which of the feed's ``variants`` augmentation made of each; None where that is endless.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor | None
    index: torch.Tensor | None = None
    variant: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        inputs = tuple(tensor.to(device) for tensor in self.inputs)
        return Batch(inputs, None if self.targets is None else self.targets.to(device), self.index, self.variant)


class Feed(Protocol):
    """A set of examples to train on or to look at."""

    @property
    def examples(self) -> int | None:
        """How many there are over all ranks, or None where a loader does not say."""
        ...

    @property
    def steps(self) -> int:
        """How many batches an epoch has on this rank."""
        ...

    @property
    def variants(self) -> int | None:
        """How many augmented forms an example has; 1 without augmentation, None where they are endless."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether batches have targets."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this rank's batches of epoch ``number``: shuffled and augmented by seed and number alone."""
        ...

    def once(self) -> Iterator[Batch]:
        """Yield every example once, in order and as it is, the same on every rank."""
        ...
