"""Data splits of a recipe, from a registered word, a factory, arrays or DataLoaders.

Validation examples are held out of the training examples; every choice in training uses them alone. The test split is
read once, for the report, after all models are packed.
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

_SHARE = 0.1  # of the training examples, for validation by default
_BATCH = 64  # examples in a batch of calibration inputs
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split: raw arrays in memory, or a loader of batches.

    Attributes:
        inputs: arrays ``(N, ...)``; none for a loader.
        targets: int64 or float32 ``(N, ...)``, or None.
        loader: a DataLoader or another iterable of batches.
    """

    inputs: tuple[NDArray[Any], ...] = ()
    targets: NDArray[Any] | None = None
    loader: Iterable[Any] | None = None

    @property
    def examples(self) -> int | None:
        """Number of examples, None if a loader does not tell."""
        if self.loader is None:
            return len(self.inputs[0])
        data: Any = getattr(self.loader, "dataset", None)
        return len(data) if hasattr(data, "__len__") else None

    def take(self, indices: NDArray[np.int64]) -> Split:
        """Return the examples of arrays at ``indices``, in that order."""
        targets = None if self.targets is None else self.targets[indices]
        return Split(tuple(each[indices] for each in self.inputs), targets)

    def digest(self) -> str:
        """Return the SHA-256 of the arrays, or of a loader's sizes and first batches."""
        if self.loader is not None:
            return loader_checks.loader_digest(self.loader)
        return digest(self.inputs if self.targets is None else (*self.inputs, self.targets))


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The splits of a recipe's data.

    Attributes:
        name: name of the data set.
        train, validation, test: the splits; validation is optional.
        use: metadata for files: preprocessing, task and class names.
        data: the recipe's spec.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    use: FileInfo
    data: DataSpec

    def fingerprint(self) -> dict[str, Any]:
        """Return the data set's name, and split -> SHA-256."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {"name": self.name} | {name: split.digest() for name, split in splits.items() if split is not None}

    def file_info(self, licence: str | None) -> FileInfo:
        """Return the metadata for the file of a model with this licence."""
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
            loader_checks.check_arguments(self.train.loader, models)
        for name, split in {"validation": self.validation, "test": self.test}.items():
            if split is not None and split.loader is not None:
                batches = self.feed(split, next(iter(models.values()))).once()
                for _ in islice(loader_checks.with_equal_targets(batches, name), loader_checks.LOOKED_AT):
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
            split: one of the splits.
            parameters: the arguments that models take of a loader's batches -> whether they are required.
            batch: for arrays, examples in a batch over all ranks.
            seed: seed of order and augmentation.
            augment: whether to apply the recipe's augmentations.
            rank: index of this rank.
            world: number of ranks.
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
        """Return ``data.calibration`` training examples as inputs, drawn with the data's seed; a loader's first ones.

        Args:
            parameters: the arguments that models take of a loader's batches -> whether they are required.

        Raises:
            DataError: there are fewer than two examples, or an input is not finite.
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
            raise DataError(f"{self.name}: the inputs have NaN or infinity; remove such examples")
        if sum(len(batch[0]) for batch in batches) < 2:
            raise DataError(f"{self.name}: at least two training examples are needed; give more")
        return CalibrationInputs(tuple(batches), names)


def load_splits(data: DataSpec, folder: Path, *, task: str | None, metric: str) -> DataSplits:
    """Return the splits of a recipe's data.

    Args:
        data: the recipe's spec.
        folder: folder that paths are relative to.
        task: task of the models; None for the data set's own.
        metric: name of the metric.

    Raises:
        SpecError: a field of the spec does not suit the source.
        DataError: examples are missing or have the wrong form.
    """
    if isinstance(data.source, Mapping):
        for split in data.source:
            if split not in _SPLITS:
                raise SpecError(f"recipe.data.source: {UnknownName('split', str(split), _SPLITS)}")
    items = {split: _user_item(data, folder, split) for split in ("train", "test")}
    own = (
        _user_item(data, folder, "validation") if data.validation == "own" or isinstance(data.source, Mapping) else None
    )
    for split, item in items.items():
        if item is None:
            raise DataError(f"recipe.data.source: the {split} split is missing; give {{train: ..., test: ...}}")
    train, test = (_split(items[name], name) for name in ("train", "test"))
    if data.validation == "own" and own is None:
        raise DataError("recipe.data.validation: own needs a split 'validation', which the source lacks; use a share")
    validation = None if own is None else _split(own, "validation")
    if validation is None and data.validation != 0:
        train, validation = _hold_out(items["train"], train, data)
    if test.targets is None and test.loader is None:
        raise DataError("recipe.data.source: the test split has no targets; models cannot be tested without")
    first = items["train"]
    known = first if isinstance(first, Dataset) else None
    use = FileInfo(
        preprocessing=_preprocessing(data, known, train),
        task=task or (known.task if known else None),
        class_names=known.class_names if known else (),
        metric=metric,
    )
    name = known.name if known else _called(data.source)
    return DataSplits(name, train, validation, test, use, data)


def _user_item(data: DataSpec, folder: Path, split: str) -> Any:
    """Return the user's object for a split, None if there is none."""
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
    """Convert a user's object to a split.

    Raises:
        DataError: the object has no examples, or arrays differ in length.
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
            raise DataError(f"recipe.data.source: {name} has arrays of {counts} examples; give all the same number")
        return Split(inputs, targets)
    if isinstance(item, Iterable) and not isinstance(item, str | torch.utils.data.Dataset):
        return Split(loader=item)
    hint = "; put it into a DataLoader" if isinstance(item, torch.utils.data.Dataset) else ""
    raise DataError(
        f"recipe.data.source: {name} is a {type(item).__name__}{hint}; give a Dataset of Attar, arrays (x, y) or a "
        "DataLoader"
    )


def _hold_out(item: Any, train: Split, data: DataSpec) -> tuple[Split, Split | None]:
    """Return training and validation examples; a loader cannot be split and keeps all."""
    if train.loader is not None:
        if data.validation is not None:
            raise SpecError(
                f"recipe.data.validation: {data.validation} cannot be held out of a {type(train.loader).__name__}; use "
                "own, which calls the factory with split='validation', or 0"
            )
        return train, None
    share = _SHARE if data.validation is None else float(data.validation)
    if isinstance(item, Dataset):
        kept, held = holdout(item, share, data.seed)
        return _split(kept, "train"), _split(held, "validation")
    # Stratified by class if each example has one integer label, as for registered data sets.
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
                f"recipe.data.preprocessing: {data.preprocessing} does not apply to a loader or several inputs; "
                "preprocess in the loader and remove it"
            )
        return None
    if data.preprocessing is not None:
        return find_preprocessing(data.preprocessing)
    if known is not None and known.preprocessing is not None:
        return known.preprocessing
    kind = train.inputs[0].dtype
    if kind in (np.uint8, np.bool_):
        raise SpecError(
            f"recipe.data.preprocessing: the examples are {kind} of shape {train.inputs[0].shape}, and no "
            "preprocessing is set; use unit for images (N, C, H, W) of 0 to 255, or none if the module takes them"
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
