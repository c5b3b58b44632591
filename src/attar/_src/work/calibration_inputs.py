"""CalibrationInputs: real inputs of a module in batches, with the axes that count examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from attar._src.train.inputs import arguments_taken

#: The inputs of one batch, in the order of the module's arguments.
BatchInputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class CalibrationInputs:
    """Batches of real inputs.

    Attributes:
        batches: each a tensor for each input.
        names: the arguments they are, none if by position.
        axes: the axis of each input that counts examples; none if it is axis 0 of all.
        notes: what was done to the user's data, in sentences.
        targets: of each batch, one for each example, if the data have labels; else empty.
    """

    batches: tuple[BatchInputs, ...]
    names: tuple[str, ...] = ()
    axes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    targets: tuple[torch.Tensor, ...] = ()

    def of(self, parameters: Mapping[str, bool]) -> CalibrationInputs:
        """Return the inputs of a module, with names; ``parameters``: argument of its forward -> whether required.

        Raises:
            DataError: a required one is missing.
        """
        taken = arguments_taken(parameters, self.names, len(self.batches[0]))
        if not self.names:
            return replace(self, names=taken)
        places = [self.names.index(name) for name in taken]
        batches = tuple(tuple(batch[i] for i in places) for batch in self.batches)
        axes = tuple(self.axes[i] for i in places) if self.axes else ()
        return replace(self, batches=batches, names=taken, axes=axes)

    @property
    def batch_axes(self) -> tuple[int, ...]:
        """The axis of each input that counts examples."""
        return self.axes or (0,) * len(self.batches[0])

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(map(self.count, self.batches))

    def count(self, batch: BatchInputs) -> int:
        """Return the number of examples in a batch."""
        return batch[0].shape[self.batch_axes[0]]

    def example(self, count: int, varying: Sequence[Sequence[int]] = ()) -> BatchInputs:
        """Return as one batch the first ``count`` examples of one shape, or all of the most frequent shape.

        Batches at least two long along the axes ``varying`` of each input come first. A single example is repeated:
        the exporter takes a length of 1 for fixed.
        """
        alike: dict[tuple[tuple[int, ...], ...], list[BatchInputs]] = {}
        for batch in self._long(varying):
            found = alike.setdefault(tuple(map(_other_sizes, batch, self.batch_axes)), [])
            found.append(batch)
            if sum(map(self.count, found)) >= count:
                break
        else:
            found = max(alike.values(), key=lambda batches: sum(map(self.count, batches)))
        whole = self._joined(found)
        return self.part(self._joined([whole, whole]) if self.count(whole) == 1 else whole, 0, count)

    def of_one_size(self) -> CalibrationInputs:
        """Return the batches as long as the first, for a graph with a fixed batch size."""
        size = self.count(self.batches[0])
        kept = [place for place, batch in enumerate(self.batches) if self.count(batch) == size]
        targets = tuple(self.targets[place] for place in kept) if self.targets else ()
        return replace(self, batches=tuple(self.batches[place] for place in kept), targets=targets)

    def first(self, examples: int, *, cut: bool = False) -> CalibrationInputs:
        """Return the first batches with at most ``examples`` in all, at least one; ``cut`` takes a part of the last."""
        kept: list[BatchInputs] = []
        left = examples
        for batch in self.batches:
            if cut and 0 < left < self.count(batch):
                batch = self.part(batch, 0, left)
            if kept and self.count(batch) > left:
                break
            kept.append(batch)
            left -= self.count(batch)
        targets = tuple(each[: self.count(batch)] for each, batch in zip(self.targets, kept, strict=False))
        return replace(self, batches=tuple(kept), targets=targets)

    def halves(self, *, whole: bool = False) -> tuple[CalibrationInputs, CalibrationInputs]:
        """Return two halves, as :meth:`one_of` does; the same inputs twice if there is nothing to divide."""
        return self.one_of(2, whole=whole)

    def one_of(self, several: int, *, whole: bool = False) -> tuple[CalibrationInputs, CalibrationInputs]:
        """Return the rest, and one of every ``several`` examples in a row, drawn with a fixed seed.

        Both then have a part of everything in sorted data, as the last examples would not, and in data that alternate,
        as every fourth would not. Of fewer than ``several`` one is taken; a single one is in both.

        Args:
            several: 2 or more.
            whole: draw batches instead of examples, for a module whose batch size is fixed.
        """
        counts = [1 if whole else self.count(batch) for batch in self.batches]
        total = sum(counts)
        if total < 2:
            return self, self
        several = min(several, total)
        drawn = torch.randint(several, (-(-total // several),), generator=torch.Generator().manual_seed(0))
        taken = torch.arange(total) % several == drawn.repeat_interleave(several)[:total]
        parts = taken.split(counts)
        rest, one = (self._chosen([part == which for part in parts]) for which in (False, True))
        return rest, one

    def _chosen(self, masks: Sequence[torch.Tensor]) -> CalibrationInputs:
        """Return the examples of each batch that a mask has; that of a whole batch has one element."""
        batches, targets = list[BatchInputs](), list[torch.Tensor]()
        for place, (batch, mask) in enumerate(zip(self.batches, masks, strict=True)):
            at = mask.expand(self.count(batch)).nonzero()[:, 0]
            if not len(at):
                continue
            batches.append(tuple(x.index_select(axis, at) for x, axis in zip(batch, self.batch_axes, strict=True)))
            if self.targets:
                targets.append(self.targets[place][at])
        return replace(self, batches=tuple(batches), targets=tuple(targets))

    def part(self, batch: BatchInputs, start: int, stop: int) -> BatchInputs:
        """Return some examples of a batch."""
        stop = min(stop, self.count(batch))
        return tuple(x.narrow(axis, start, stop - start) for x, axis in zip(batch, self.batch_axes, strict=True))

    def in_parts(self, examples: int) -> CalibrationInputs:
        """Return the same examples in batches of at most ``examples``."""
        places = [(i, at) for i, batch in enumerate(self.batches) for at in range(0, self.count(batch), examples)]
        batches = tuple(self.part(self.batches[i], at, at + examples) for i, at in places)
        targets = tuple(self.targets[i][at : at + examples] for i, at in places) if self.targets else ()
        return replace(self, batches=batches, targets=targets)

    def _joined(self, batches: Sequence[BatchInputs]) -> BatchInputs:
        return tuple(map(torch.cat, zip(*batches, strict=True), self.batch_axes))

    def _long(self, varying: Sequence[Sequence[int]]) -> Iterator[BatchInputs]:
        """Yield the batches at least two long along ``varying``; all if there are none."""

        def is_long(batch: BatchInputs) -> bool:
            axes = zip(batch, varying, self.batch_axes, strict=False)
            return all(x.shape[axis] > 1 for x, several, own in axes for axis in several if axis != own)

        long = [batch for batch in self.batches if is_long(batch)]
        yield from long or self.batches


def _other_sizes(tensor: torch.Tensor, axis: int) -> tuple[int, ...]:
    return (*tensor.shape[:axis], *tensor.shape[axis + 1 :])
