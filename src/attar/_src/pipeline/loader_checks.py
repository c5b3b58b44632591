"""Checks of DataLoaders and similar iterables before a run: their digest, arguments and targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten_with_path

from attar._src.core.digest import digest
from attar._src.core.errors import DataError
from attar._src.train.batch import Batch
from attar._src.train.feed import LoaderFeed, length_of, seeded
from attar._src.train.inputs import SharedParameters, arguments_taken

#: Batches, and bytes, to read of a loader.
LOOKED_AT, _BYTES = 64, 64 * 2**20


def loader_digest(loader: Iterable[Any]) -> str:
    """Return the SHA-256 of a loader's sizes and of its first 64 batches or 64 MiB, drawn with a fixed seed.

    Changes in later batches that leave the sizes unchanged are not noticed.
    """
    return digest(_digested(loader))


def _digested(loader: Iterable[Any]) -> Iterator[Any]:
    yield f"{type(loader).__qualname__} {length_of(loader)} {count_examples(loader)}"
    seen = 0
    for batch in islice(seeded(loader, 0), LOOKED_AT):
        for path, leaf in tree_flatten_with_path(batch)[0]:
            yield str(path)
            if isinstance(leaf, torch.Tensor | np.ndarray):
                yield leaf
                seen += leaf.nbytes
            elif leaf is None or isinstance(leaf, str | bytes | int | float):
                yield repr(leaf)
        if seen >= _BYTES:
            return


def count_examples(loader: Iterable[Any]) -> int | None:
    """Return the number of examples in a loader's data set, None if it does not tell."""
    return length_of(getattr(loader, "dataset", None))


def check_arguments(loader: Iterable[Any], models: Mapping[str, Mapping[str, bool]]) -> None:
    """Raise a DataError if the first batch lacks an argument that a model requires."""
    for name, parameters in models.items():
        try:
            LoaderFeed(loader, parameters)
        except DataError as error:
            raise DataError(f"recipe.models.{name}: {error}") from error
    first = LoaderFeed(loader, SharedParameters(*models.values())).first
    for name, parameters in models.items():
        try:
            arguments_taken(parameters, first.names, len(first.inputs))
        except DataError as error:
            raise DataError(f"recipe.models.{name}: {error}") from error


def with_equal_targets(batches: Iterable[Batch], split: str) -> Iterator[Batch]:
    """Yield the batches, whose targets must have one shape per example, so that a metric can concatenate them.

    Raises:
        DataError: targets of two batches differ in more than axis 0.
    """
    shapes: set[tuple[int, ...]] = set()
    for batch in batches:
        if batch.targets is not None:
            shapes.add(tuple(batch.targets.shape[1:]))
        if len(shapes) > 1:
            raise DataError(
                f"recipe.data.source: {split} has targets of shapes {' and '.join(map(str, sorted(shapes)))} per "
                "example, and a metric takes those of the whole split together; pad all to one length"
            )
        yield batch
