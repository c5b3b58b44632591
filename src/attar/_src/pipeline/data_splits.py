"""Data: what a recipe trains, chooses and is judged on, from a word, a factory, arrays or DataLoaders.

Validation is held out of the training examples; choices look at nothing else. The test split is read for the report,
once, when everything is packed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.digest import digest
from attar._src.core.errors import DataError, SpecError, UnknownName
from attar._src.core.registry import load_object
from attar._src.data.dataset import Dataset, holdout
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.registry import DATASETS, load_dataset
from attar._src.pipeline import loader_checks
from attar._src.recipe.parts import DataSpec
from attar._src.train.feed import ArrayFeed, LoaderFeed, preprocessor
from attar._src.train.seeds import derive_seed, seed_everything
from attar._src.work.compressed_model import CalibrationInputs, FileInfo

_SHARE = 0.1
_BATCH = 64
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split: arrays in memory, raw, or a loader of batches.

    Attributes:
        inputs: each ``(n, ...)``; none where there is a loader.
        targets: int64 or float32 ``(n, ...)``, or None.
        loader: a DataLoader or the like.
    """

    inputs: tuple[NDArray[Any], ...] = ()
    targets: NDArray[Any] | None = None
    loader: Iterable[Any] | None = None

    @property
    def examples(self) -> int | None:
        """How many there are, None where a loader does not say."""
        if self.loader is None:
            return len(self.inputs[0])
        data: Any = getattr(self.loader, "dataset", None)
        return len(data) if hasattr(data, "__len__") else None

    def take(self, indices: NDArray[np.int64]) -> Split:
        """Return the examples at ``indices`` of arrays, in that order."""
        targets = None if self.targets is None else self.targets[indices]
        return Split(tuple(each[indices] for each in self.inputs), targets)

    def digest(self) -> str:
        """Return the SHA-256 of the arrays; of a loader that of its sizes and its first 64 batches or 64 MiB."""
        if self.loader is not None:
            return loader_checks.loader_digest(self.loader)
        return digest(self.inputs if self.targets is None else (*self.inputs, self.targets))


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The splits of a recipe's data.

    Attributes:
        name: what it is called.
        train, validation, test: the splits; there may be no validation.
        use: preprocessing, task and class names, as the data set has them.
        data: the recipe's description.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    use: FileInfo
    data: DataSpec

    def fingerprint(self) -> dict[str, Any]:
        """Return the SHA-256 of every split by name, and what the set is called."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {"name": self.name} | {name: split.digest() for name, split in splits.items() if split is not None}

    def use_of(self, licence: str | None) -> FileInfo:
        """Return what a file of a model under this licence tells its user."""
        return replace(self.use, licence=licence)

    def check_loaders(self, models: Mapping[str, Mapping[str, bool]]) -> None:
        """Refuse loaders whose first batches do not suit the models.

        Args:
            models: name of a model -> the arguments of its forward -> whether they are required.

        Raises:
            DataError: batches lack a required argument of a model, or targets of validation or test differ in shape
                from batch to batch.
        """
        if self.train.loader is not None:
            loader_checks.serves(self.train.loader, models)
        for name, split in {"validation": self.validation, "test": self.test}.items():
            if split is not None and split.loader is not None:
                given = self.feed(split, next(iter(models.values()))).once()
                for _ in islice(loader_checks.alike(given, name), loader_checks.LOOKED_AT):
                    pass

    def feed(
        self,
        split: Split,
        parameters: Mapping[str, bool] = MappingProxyType({}),
        *,
        batch: int = 256,
        seed: int = 0,
        augment: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> ArrayFeed | LoaderFeed:
        """Return a split as a feed.

        Args:
            split: one of this set's.
            parameters: the arguments that models take of a loader's batches -> whether they are required.
            batch: examples in a batch over all ranks, of arrays.
            seed: of what is drawn.
            augment: whether the recipe's augmentations are drawn.
            rank: which rank this is.
            world: how many there are.
        """
        if split.loader is not None:
            return LoaderFeed(split.loader, parameters, seed=seed, rank=rank, world=world)
        return ArrayFeed(
            split.inputs,
            split.targets,
            batch=batch,
            prepare=preprocessor(self.use.preprocessing),
            augment=self.data.augment if augment else (),
            seed=seed,
            rank=rank,
            world=world,
        )

    def calibration(self, parameters: Mapping[str, bool]) -> CalibrationInputs:
        """Return some hundred training examples as inputs, drawn by the data's seed.

        Args:
            parameters: the arguments that models take of a loader's batches -> whether they are required.

        Raises:
            DataError: there are fewer than two, or an input is not finite.
        """
        feed, wanted = self.feed(self.train, parameters, batch=_BATCH, seed=self.data.seed), self.data.calibration
        names: tuple[str, ...] = ()
        if isinstance(feed, ArrayFeed):
            order = torch.from_numpy(_order(feed.examples, derive_seed(self.data.seed, "calibration"))[:wanted])
            batches = [feed.at(part, torch.zeros_like(part)).inputs for part in order.split(_BATCH)]
        else:
            batches, seen, names = [], 0, feed.first.names
            for batch in feed.once():
                batches.append(tuple(each[: wanted - seen] for each in batch.inputs))
                seen += len(batches[-1][0])
                if seen >= wanted:
                    break
        if any(each.is_floating_point() and not torch.isfinite(each).all() for batch in batches for each in batch):
            raise DataError(f"{self.name}: the inputs hold NaN or infinity; nothing can be trained on them")
        if sum(len(batch[0]) for batch in batches) < 2:
            raise DataError(f"{self.name}: at least two training examples are needed")
        return CalibrationInputs(tuple(batches), names)


def load_splits(data: DataSpec, folder: Path, *, task: str | None, metric: str) -> DataSplits:
    """Return the splits a recipe asks for.

    Args:
        data: the recipe's description.
        folder: what its paths are relative to.
        task: what the models are for; the data set's own where None.
        metric: what they are judged by.

    Raises:
        SpecError: the source cannot be used as it is described.
        DataError: examples are missing, or not of the form they should have.
    """
    if isinstance(data.source, Mapping):
        for split in data.source:
            if split not in _SPLITS:
                raise SpecError(f"recipe.data.source: {UnknownName('split', str(split), _SPLITS)}")
    given = {split: _given(data, folder, split) for split in ("train", "test")}
    own = _given(data, folder, "validation") if data.validation == "own" or isinstance(data.source, Mapping) else None
    for split, item in given.items():
        if item is None:
            raise DataError(f"recipe.data.source: it has no {split} split; give {{train: ..., test: ...}}")
    train, test = (_split(given[name], name) for name in ("train", "test"))
    if data.validation == "own" and own is None:
        raise DataError("recipe.data.validation: own was asked for and the source gives none for split='validation'")
    validation = None if own is None else _split(own, "validation")
    if validation is None and data.validation != 0:
        train, validation = _hold_out(given["train"], train, data)
    if test.targets is None and test.loader is None:
        raise DataError("recipe.data.source: the test split has no targets; there is nothing to judge a model by")
    first = given["train"]
    known = first if isinstance(first, Dataset) else None
    use = FileInfo(
        preprocessing=_preprocessing(data, known, train),
        task=task or (known.task if known else None),
        class_names=known.class_names if known else (),
        metric=metric,
    )
    name = known.name if known else _called(data.source)
    return DataSplits(name, train, validation, test, use, data)


def _given(data: DataSpec, folder: Path, split: str) -> Any:
    """Return what the source has for a split, None where it has nothing."""
    source = data.source
    if isinstance(source, Mapping):
        return source.get(split)
    if not isinstance(source, str):
        return source if split == "train" else None
    word, _, argument = source.partition(":")
    if word in set(DATASETS):
        return load_dataset(f"{word}:{folder / Path(argument).expanduser()}" if argument else source, split)
    factory = load_object(source)
    try:
        inspect.signature(factory).bind(split=split)
    except TypeError as error:
        raise SpecError(f"recipe.data.source: {source!r} cannot be called with split={split!r}: {error}") from error
    seed_everything(derive_seed(data.seed, "data", split))
    return factory(split=split)


def _split(item: Any, name: str) -> Split:
    """Return what a user gave for a split.

    Raises:
        DataError: it is nothing examples can be taken from.
    """
    if isinstance(item, Split):
        return item
    if isinstance(item, Dataset):
        return Split((item.x,), item.y)
    x, y = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
    if _is_array(x) or (isinstance(x, tuple | list) and x and all(_is_array(each) for each in x)):
        inputs = tuple(_array(each) for each in ((x,) if _is_array(x) else x))
        targets = None if y is None else _targets(y, name)
        counts = [len(each) for each in (*inputs, *([] if targets is None else [targets]))]
        if len(set(counts)) > 1 or not counts[0]:
            raise DataError(f"recipe.data.source: {name} has arrays of {counts} examples; they do not go together")
        return Split(inputs, targets)
    if isinstance(item, Iterable) and not isinstance(item, str | torch.utils.data.Dataset):
        return Split(loader=item)
    hint = "; put it into a DataLoader" if isinstance(item, torch.utils.data.Dataset) else ""
    raise DataError(
        f"recipe.data.source: {name} is a {type(item).__name__}{hint}; a Dataset of Attar, arrays (x, y) or a "
        "DataLoader was expected"
    )


def _hold_out(given: Any, train: Split, data: DataSpec) -> tuple[Split, Split | None]:
    """Return training and validation examples; a loader cannot be divided and keeps all."""
    if train.loader is not None:
        if data.validation is not None:
            raise SpecError(
                f"recipe.data.validation: {data.validation} cannot be held out of a {type(train.loader).__name__}; use "
                "own, with which the factory is called with split='validation', or 0"
            )
        return train, None
    share = _SHARE if data.validation is None else float(data.validation)
    if isinstance(given, Dataset):
        kept, held = holdout(given, share, data.seed)
        return _split(kept, "train"), _split(held, "validation")
    # Evenly by class where there is one whole label for each example, as for sets that are known by name.
    labels = train.targets
    whole = labels is not None and labels.ndim == 1 and labels.dtype == np.int64
    positions = np.arange(train.examples or 0, dtype=np.int64)
    stand_in = Dataset(positions, labels if whole else None, name="recipe.data.validation", split="train", task=None)
    kept, held = holdout(stand_in, share, data.seed)
    return train.take(kept.x), train.take(held.x)


def _preprocessing(data: DataSpec, known: Dataset | None, train: Split) -> Preprocessing | None:
    if train.loader is not None or len(train.inputs) > 1:
        if data.preprocessing not in (None, "none"):
            raise SpecError(
                f"recipe.data.preprocessing: {data.preprocessing} was asked for, and a loader or several inputs are "
                "taken as they come; prepare them there and take it out"
            )
        return None
    if data.preprocessing is not None:
        return find_preprocessing(data.preprocessing)
    if known is not None and known.preprocessing is not None:
        return known.preprocessing
    kind = train.inputs[0].dtype
    if kind in (np.uint8, np.bool_):
        raise SpecError(
            f"recipe.data.preprocessing: the examples are {kind} of shape {train.inputs[0].shape}, and nothing turns "
            "them into float32; use unit for images (NCHW) of 0 to 255, or none where a module takes them as they are"
        )
    return None


def _called(source: Any) -> str:
    if isinstance(source, str):
        path, _, name = source.rpartition(":")
        return f"{Path(path).name}:{name}" if path else name
    return "examples given as objects"


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor)


def _array(value: Any) -> NDArray[Any]:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _targets(value: Any, name: str) -> NDArray[Any]:
    array = _array(np.asarray(value) if not _is_array(value) else value)
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise DataError(f"recipe.data.source: targets of {name} are {array.dtype}; finite numbers were expected")
    return array.astype(np.float32)


def _order(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.RandomState(seed % 2**32).permutation(count).astype(np.int64)
