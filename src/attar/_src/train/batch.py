"""Batch and Feed: what a step sees, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from attar._src.core.errors import DataError


@dataclass(frozen=True)
class Batch:
    """Examples of one step.

    Attributes:
        inputs: each ``(n, ...)``; of batches with names those of every model of a run.
        targets: what the outputs are judged by, ``(n, ...)``, or None where there are no labels.
        index: int64 ``(n,)``: which examples of the set these are; None where a loader does not say.
        variant: int64 ``(n,)``: which of the feed's ``variants`` augmentation made of each; None where that is endless.
        names: the arguments the inputs are; none where they are given by position.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor | None
    index: torch.Tensor | None = None
    variant: torch.Tensor | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs[0])

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        inputs = tuple(tensor.to(device) for tensor in self.inputs)
        return replace(self, inputs=inputs, targets=None if self.targets is None else self.targets.to(device))

    def part(self, examples: slice) -> Batch:
        """Return some of the examples, without saying which of the set they are."""
        targets = None if self.targets is None else self.targets[examples]
        return Batch(tuple(each[examples] for each in self.inputs), targets, names=self.names)

    def pick(self, names: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """Return the inputs a program takes, in its order; all of them where either has no names.

        Raises:
            DataError: one is not in the batch.
        """
        if not self.names or not names:
            return self.inputs
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DataError(f"a batch of {', '.join(self.names)} lacks {', '.join(missing)}")
        return tuple(self.inputs[self.names.index(name)] for name in names)


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
