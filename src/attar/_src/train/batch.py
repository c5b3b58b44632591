"""Batches, and the interface of their sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from attar._src.core.errors import DataError
from attar._src.data.axes import batch_axes


@dataclass(frozen=True)
class Batch:
    """Examples of one step.

    Attributes:
        inputs: each ``(n, ...)``; a recurrent state ``(layers, n, ...)``.
        targets: ``(n, ...)``; None without labels.
        index: int64 ``(n,)``, positions in the set; None if unknown, as with a DataLoader.
        variant: int64 ``(n,)``, the variant that augmentation made of each example; None if it is endless.
        names: the argument each input is; empty for positional inputs.
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
        """Return some of the examples, without ``index`` and ``variant``."""
        targets = None if self.targets is None else self.targets[examples]
        axes = batch_axes(None, self.names, [[tuple(each.shape) for each in self.inputs]])
        inputs = tuple(each[(slice(None),) * axis + (examples,)] for each, axis in zip(self.inputs, axes, strict=True))
        return Batch(inputs, targets, names=self.names)

    def pick(self, names: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """Return the inputs called ``names``, in this order; all inputs if either has no names."""
        if not self.names or not names:
            return self.inputs
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DataError(f"a batch of {', '.join(self.names)} lacks {', '.join(missing)}")
        return tuple(self.inputs[self.names.index(name)] for name in names)


class Feed(Protocol):
    """A source of batches for one rank."""

    @property
    def examples(self) -> int | None:
        """The number of examples over all ranks; None if unknown."""

    @property
    def steps(self) -> int:
        """The number of batches in an epoch on this rank."""

    @property
    def variants(self) -> int | None:
        """The number of variants of an example: 1 without augmentation, None if it is endless."""

    @property
    def labelled(self) -> bool:
        """Whether batches have targets."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch, shuffled and augmented as its number and the feed's seed determine."""

    def once(self) -> Iterator[Batch]:
        """Yield every example once, in order and not augmented, the same on every rank."""
