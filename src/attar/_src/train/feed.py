"""Feeds: Memory, of examples that lie in memory as they are stored, and Loader, of what a DataLoader gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import DataError, SpecError
from attar._src.runtime.preprocess import preprocess
from attar._src.train.augment import Augmentation, apply_endless, apply_finite, count_finite_variants, count_variants
from attar._src.train.batch import Batch
from attar._src.train.inputs import as_input, as_tensor, read_batch
from attar._src.train.seeds import IsolatedRandom, derive_seed


def preprocessor(preprocessing: Preprocessing | None) -> Callable[[Tensor], Tensor]:
    """Return what turns raw examples into inputs: with the arithmetic files are served with, in float32.

    Without a preprocessing examples are inputs as they are, floating ones in float32.
    """
    if preprocessing is None:
        return as_input
    return lambda raw: torch.from_numpy(preprocess(preprocessing, raw.numpy()))


@dataclass(frozen=True, eq=False)
class ArrayFeed:
    """Examples in memory, raw; a batch is taken, varied and prepared at once.

    Every rank draws the same order of all examples and takes its own slice of each batch, so that the batches of all
    ranks together are those one rank alone would see, but for what endless augmentations draw. ``dataclasses.replace``
    gives one with other settings.

    Attributes:
        inputs: the module's inputs as they are stored, arrays or tensors, each ``(n, ...)``. The first is augmented and
            prepared; the others are taken as they are, floating ones in float32.
        targets: ``(n, ...)``, or None.
        batch: examples in a batch, over all ranks.
        prepare: raw examples -> the first input.
        augment: what is done to the first input at random.
        seed: of order, variants and noise.
        rank, world: which rank this is, of how many.
        allowed: int64 ``(n, k)``: the variants each example may take; None for all.

    Raises:
        DataError: the arrays do not go together, or ``allowed`` does not fit them.
        SpecError: ``batch`` is no multiple of ``world``.
    """

    inputs: tuple[Any, ...]
    targets: Any = None
    batch: int = 128
    prepare: Callable[[Tensor], Tensor] = as_input
    augment: Sequence[Augmentation] = ()
    seed: int = 0
    rank: int = 0
    world: int = 1
    allowed: Tensor | None = None

    def __post_init__(self) -> None:
        # A frozen object sets its own fields this way.
        object.__setattr__(self, "inputs", tuple(as_tensor(each) for each in self.inputs))
        object.__setattr__(self, "targets", None if self.targets is None else as_tensor(self.targets))
        counts = [len(each) for each in (*self.inputs, *([] if self.targets is None else [self.targets]))]
        if not self.inputs or len(set(counts)) > 1 or counts[0] == 0:
            raise DataError(f"inputs and targets of {counts} examples do not go together")
        if self.batch % self.world:
            raise SpecError(
                f"batch {self.batch} cannot be shared by {self.world} ranks; use a multiple of {self.world}"
            )
        if counts[0] < self.world:
            raise DataError(f"{counts[0]} examples cannot be shared by {self.world} ranks; use fewer devices")
        if self.allowed is not None:
            many = self.variants
            if many is None:
                raise SpecError("variants can be limited to some where they are counted; the augmentation is endless")
            fits = self.allowed.dtype == torch.int64 and self.allowed.dim() == 2 and len(self.allowed) == counts[0]
            if not fits or self.allowed.shape[1] == 0 or int(self.allowed.min()) < 0 or int(self.allowed.max()) >= many:
                raise DataError(
                    f"allowed is {self.allowed.dtype}{tuple(self.allowed.shape)}; int64 ({counts[0]}, k) below {many} "
                    "was expected"
                )

    @property
    def examples(self) -> int:
        """How many there are over all ranks."""
        return len(self.inputs[0])

    @property
    def steps(self) -> int:
        """Whole batches in an epoch; a set smaller than a batch is one."""
        return max(1, self.examples // self.batch)

    @property
    def variants(self) -> int | None:
        """Augmented forms of an example; None where they are endless."""
        return count_variants(self.augment)

    @property
    def labelled(self) -> bool:
        """Whether there are targets."""
        return self.targets is not None

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this rank's batches of epoch ``number``: shuffled and augmented by seed and number alone.

        What does not fill the last batch is left out; the order is another one in each epoch. A set smaller than a
        batch loses what cannot be shared evenly by the ranks.
        """
        draw = torch.Generator().manual_seed(derive_seed(self.seed, "order", number))
        order = torch.randperm(self.examples, generator=draw)
        chosen = self._choose(torch.Generator().manual_seed(derive_seed(self.seed, "variant", number)))
        noise = torch.Generator().manual_seed(derive_seed(self.seed, "noise", number, self.rank))
        whole = min(self.batch, self.examples - self.examples % self.world)
        share = whole // self.world
        for step in range(self.steps):
            start = step * whole + self.rank * share
            index = order[start : start + share]
            made = self.at(index, chosen[index])
            first = apply_endless(self.augment, made.inputs[0], noise)
            yield Batch((first, *made.inputs[1:]), made.targets, index, made.variant)

    def once(self) -> Iterator[Batch]:
        """Yield every example once, in order and as it is, the same on every rank."""
        for index in torch.arange(self.examples).split(self.batch):
            yield self.at(index, torch.zeros_like(index))

    def at(self, index: Tensor, variant: Tensor) -> Batch:
        """Return given variants of given examples, without the endless augmentations.

        Args:
            index: int64 ``(m,)``.
            variant: int64 ``(m,)``; 0 is the example as it is.
        """
        first = self.prepare(apply_finite(self.augment, self.inputs[0][index], variant))
        inputs = (first, *(as_input(each[index]) for each in self.inputs[1:]))
        targets = None if self.targets is None else self.targets[index]
        return Batch(inputs, targets, index, None if self.variants is None else variant)

    def _choose(self, generator: torch.Generator) -> Tensor:
        """Return a variant for every example, int64 ``(n,)``."""
        if self.allowed is None:
            return torch.randint(count_finite_variants(self.augment), (self.examples,), generator=generator)
        column = torch.randint(self.allowed.shape[1], (self.examples, 1), generator=generator)
        return self.allowed.gather(1, column).squeeze(1)


class LoaderFeed:
    """A feed of what a ``DataLoader`` gives, or anything else that gives the same kind of batches each time it is
    iterated.

    ``train.inputs`` has the forms of a batch. Batches with names have those of the first one. Size and augmentation of
    batches are the loader's own.

    The loader draws from generators that are seeded anew for each epoch, so that one that shuffles repeats its order
    when a run goes on from a checkpoint; those given to a DataLoader or its sampler are seeded too. Of several ranks
    each goes through the whole loader and takes its slice of every batch, less what cannot be shared evenly.

    Args:
        loader: as above.
        parameters: the arguments that batches with names may have -> whether they are required.
        seed: of what the loader draws.
        rank: which rank this is.
        world: how many there are.

    Attributes:
        first: its first batch.

    Raises:
        DataError: it gives nothing, or batches of another form.
        SpecError: its workers keep their generators from epoch to epoch.
    """

    variants: int | None = None

    def __init__(
        self,
        loader: Iterable[Any],
        parameters: Mapping[str, bool] = MappingProxyType({}),
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if iter(loader) is loader:
            raise DataError(
                f"a {type(loader).__name__} can be gone through once and training does so in every epoch; give a "
                "DataLoader or a list of batches"
            )
        if getattr(loader, "persistent_workers", False):
            raise SpecError(
                "workers that persist keep their generators from epoch to epoch, and a run that goes on from a "
                "checkpoint could not repeat what they draw; use persistent_workers=False"
            )
        self.loader, self.parameters, self.seed, self.rank, self.world = loader, parameters, seed, rank, world
        items = list(islice(seeded(loader, derive_seed(seed, "loader", "look")), 1))
        if not items:
            raise DataError(f"a {type(loader).__name__} gives no batches")
        self.first = read_batch(items[0], parameters)
        self.labelled = self.first.targets is not None
        sized = length_of(loader)
        data = getattr(loader, "dataset", None)
        self.examples = None if data is None else length_of(data)
        self.steps: int = sum(1 for _ in loader) if sized is None else sized

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this rank's batches of epoch ``number``."""
        for owner in (self.loader, *(getattr(self.loader, name, None) for name in ("sampler", "batch_sampler"))):
            set_epoch = getattr(owner, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(number)
        for batch in self._batches("epoch", number):
            share = len(batch) // self.world
            if share:
                yield batch.part(slice(self.rank * share, (self.rank + 1) * share))

    def once(self) -> Iterator[Batch]:
        """Yield every batch once, whole, as the loader gives it: one that shuffles does so the same way each time."""
        return self._batches("once")

    def _batches(self, *words: str | int) -> Iterator[Batch]:
        return map(self._batch, seeded(self.loader, derive_seed(self.seed, "loader", *words)))

    def _batch(self, item: Any) -> Batch:
        batch = read_batch(item, self.parameters)
        if batch.names != self.first.names:
            raise DataError(
                f"a batch has the inputs {', '.join(batch.names) or 'by position'} and the first had "
                f"{', '.join(self.first.names) or 'them by position'}; give every batch the same"
            )
        return batch


def seeded(loader: Iterable[Any], seed: int) -> Iterator[Any]:
    """Yield what a loader gives while the generators it draws from start at ``seed``: its own and the global ones."""
    for each in (loader, getattr(loader, "sampler", None)):
        generator = getattr(each, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
    apart = IsolatedRandom(seed)
    with apart:
        batches = iter(loader)
    while True:
        with apart:
            item = next(batches, None)
        if item is None:
            return
        yield item


def length_of(thing: Any) -> int | None:
    """Return the length of what has one, None for any other."""
    # Some have a length that raises: a DataLoader over a stream.
    try:
        return len(thing)
    except TypeError:
        return None
