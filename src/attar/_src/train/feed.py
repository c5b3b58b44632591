"""Feeds of arrays in memory and of DataLoaders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import DataError, SpecError, user_code
from attar._src.runtime.preprocess import preprocess
from attar._src.train.augment import Augmentation, apply_endless, apply_finite, count_finite_variants, count_variants
from attar._src.train.batch import Batch, Feed
from attar._src.train.inputs import as_input, as_tensor, read_batch
from attar._src.train.seeds import IsolatedRandom, derive_seed


def preprocessor(preprocessing: Preprocessing | None) -> Callable[[Tensor], Tensor]:
    """Return the function from raw examples to inputs, with the arithmetic of ``Session.preprocess``."""
    if preprocessing is None:
        return as_input
    return lambda raw: torch.from_numpy(preprocess(preprocessing, raw.numpy()))


@dataclass(frozen=True, eq=False)
class ArrayFeed(Feed):
    """Raw examples in memory, ``(n, ...)``; each batch is augmented and preprocessed when it is drawn.

    Every rank draws the same order of all examples and takes its own slice of each batch, so that the batches of all
    ranks together are those of one rank alone, except for endless augmentations.

    Attributes:
        inputs: arrays or tensors. The first is augmented and prepared; floating-point ones become float32.
        batch: examples in a batch, over all ranks.
        prepare: raw examples -> the first input.
        rank, world: this rank, and the number of ranks.
        allowed: int64 ``(n, k)``, the variants each example may take; None for all.
        names: the arguments the inputs are; none if they are by position.

    Raises:
        DataError: the arrays differ in length, or ``allowed`` does not fit them.
        SpecError: ``batch`` is not a multiple of ``world``, or ``allowed`` is given with endless augmentation.
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
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A frozen object sets its own fields this way.
        object.__setattr__(self, "inputs", tuple(as_tensor(each) for each in self.inputs))
        object.__setattr__(self, "targets", None if self.targets is None else as_tensor(self.targets))
        counts = [len(each) for each in (*self.inputs, self.targets) if each is not None]
        if not self.inputs or len(set(counts)) > 1 or counts[0] == 0:
            raise DataError(f"inputs and targets of {counts} examples do not go together")
        if self.batch % self.world:
            raise SpecError(
                f"batch {self.batch} cannot be shared by {self.world} ranks; use a multiple of {self.world}"
            )
        if counts[0] < self.world:
            raise DataError(f"{counts[0]} examples cannot be shared by {self.world} ranks; use fewer devices")
        if self.allowed is not None:
            self._check_allowed(self.allowed)

    def _check_allowed(self, allowed: Tensor) -> None:
        if self.variants is None:
            raise SpecError("allowed limits the variants of finite augmentations; this augmentation is endless")
        fits = allowed.dtype == torch.int64 and allowed.dim() == 2 and len(allowed) == self.examples and allowed.numel()
        if not fits or int(allowed.min()) < 0 or int(allowed.max()) >= self.variants:
            asked = f"int64 ({self.examples}, k) from 0 to {self.variants - 1}"
            raise DataError(f"allowed should be {asked}; {allowed.dtype}{tuple(allowed.shape)} arrived")

    @property
    def examples(self) -> int:
        return len(self.inputs[0])

    @property
    def steps(self) -> int:
        return max(1, self.examples // self.batch)

    @property
    def variants(self) -> int | None:
        return count_variants(self.augment)

    @property
    def labelled(self) -> bool:
        return self.targets is not None

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch, without examples that do not fill the last batch.

        A set smaller than a batch is one batch, without examples that cannot be shared evenly by the ranks.
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
            yield replace(made, inputs=(first, *made.inputs[1:]))

    def once(self) -> Iterator[Batch]:
        for index in torch.arange(self.examples).split(self.batch):
            yield self.at(index, torch.zeros_like(index))

    def at(self, index: Tensor, variant: Tensor) -> Batch:
        """Return variant ``variant[i]`` of example ``index[i]``, both int64 ``(m,)``, without endless augmentations."""
        first = self.prepare(apply_finite(self.augment, self.inputs[0][index], variant))
        inputs = (first, *(as_input(each[index]) for each in self.inputs[1:]))
        targets = None if self.targets is None else self.targets[index]
        return Batch(inputs, targets, index, None if self.variants is None else variant, self.names)

    def _choose(self, generator: torch.Generator) -> Tensor:
        """Return a variant for every example, int64 ``(n,)``."""
        if self.allowed is None:
            return torch.randint(count_finite_variants(self.augment), (self.examples,), generator=generator)
        column = torch.randint(self.allowed.shape[1], (self.examples, 1), generator=generator)
        return self.allowed.gather(1, column).squeeze(1)


class LoaderFeed:
    """The batches of a ``DataLoader``, or of another iterable that can be iterated again, in the forms of ``inputs``.

    Batch size and augmentation are the loader's own. All generators it draws from are seeded for each epoch, so that a
    shuffling loader repeats its order when a run resumes from a checkpoint. Each rank iterates the whole loader and
    takes its slice of every batch, without examples that cannot be shared evenly.

    Attributes:
        parameters: arguments of the models' forward -> whether they are required.
        rank, world: this rank, and the number of ranks.
        first: the first batch.

    Raises:
        DataError: the loader is empty or can be iterated only once, or its batches have another form.
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
                f"a {type(loader).__name__} can be iterated once and training iterates in every epoch; give a "
                "DataLoader or a list of batches"
            )
        if getattr(loader, "persistent_workers", False):
            raise SpecError(
                "persistent workers keep their generators from epoch to epoch, and a run resumed from a checkpoint "
                "could not repeat what they draw; use persistent_workers=False"
            )
        self.loader, self.parameters, self.seed, self.rank, self.world = loader, parameters, seed, rank, world
        first = next(seeded(loader, derive_seed(seed, "loader", "look")), None)
        if first is None:
            raise DataError(f"a {type(loader).__name__} gives no batches")
        self.first = read_batch(first, parameters)
        self.labelled = self.first.targets is not None
        sized = length_of(loader)
        self.examples = length_of(getattr(loader, "dataset", None))
        self.steps: int = sum(1 for _ in loader) if sized is None else sized

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this rank's slices of the batches of an epoch."""
        loader: Any = self.loader
        for owner in (loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler"))):
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(number)
        for batch in self._batches("epoch", number):
            share = len(batch) // self.world
            if share:
                yield batch.part(slice(self.rank * share, (self.rank + 1) * share))

    def once(self) -> Iterator[Batch]:
        """Yield every batch once, whole, in the loader's order: a shuffling loader repeats the same order."""
        return self._batches("once")

    def _batches(self, *words: str | int) -> Iterator[Batch]:
        for item in seeded(self.loader, derive_seed(self.seed, "loader", *words)):
            batch = read_batch(item, self.parameters)
            if batch.names != self.first.names:
                raise DataError(
                    f"a batch has the inputs {', '.join(batch.names) or 'by position'} and the first had "
                    f"{', '.join(self.first.names) or 'them by position'}; give every batch the same"
                )
            yield batch


def seeded(loader: Iterable[Any], seed: int) -> Iterator[Any]:
    """Iterate a loader with its own and the global generators seeded; the global state outside is not affected."""
    for each in (loader, getattr(loader, "sampler", None)):
        generator = getattr(each, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
    isolated, what = IsolatedRandom(seed), f"the data ({type(loader).__name__})"
    with isolated, user_code(what):
        batches = iter(loader)
    while True:
        with isolated, user_code(what):
            item = next(batches, None)
        if item is None:
            return
        yield item


def length_of(thing: Any) -> int | None:
    """Return ``len(thing)``; None if it has none or, as a DataLoader over a stream, one that raises."""
    try:
        return len(thing)
    except TypeError:
        return None
