"""Data splits of a recipe.

Validation examples are held out of the training examples; every choice in training uses them alone. The test split is
read once, for the report, after all models are packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import DataError, SpecError, UnknownName, prefixed_errors
from attar._src.core.registry import load_object
from attar._src.data.dataset import Dataset, holdout
from attar._src.data.huggingface import HF
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.registry import DATASETS, call_factory, load_dataset
from attar._src.data.texts import TEXT, Texts, read_texts
from attar._src.data.tokenizer import Tokenizer
from attar._src.deploy.calibration_inputs import collect_inputs
from attar._src.measure.accuracy import AccuracyMetric
from attar._src.measure.class_layout import IGNORE_INDEX
from attar._src.pipeline import loader_checks
from attar._src.pipeline.split import Split, read_split
from attar._src.recipe.parts import DataSpec
from attar._src.recipe.reference import expand_path
from attar._src.train.feed import ArrayFeed, LoaderFeed, preprocessor
from attar._src.train.inputs import TARGETS, RawBatch, SharedParameters, read_raw_batch
from attar._src.train.seeds import derive_seed, seed_everything
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo

_SHARE = 0.1  # of the training examples, for validation by default
_BATCH = 64  # examples in a batch of calibration inputs
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The splits of a recipe's data, and what files say of them (``use``).

    ``highest``: split -> the largest integer target in its arrays, or in the batches that :meth:`check_loaders` read.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    use: FileInfo
    data: DataSpec
    highest: dict[str, int] = field(default_factory=dict)

    @property
    def has_classes(self) -> bool:
        """Whether integer targets are classes, by the metric or the task."""
        return self.use.metric == AccuracyMetric.name or self.use.task == "classification"

    def fingerprint(self) -> dict[str, Any]:
        """Return the data set's name, and split -> SHA-256."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {"name": self.name} | {name: split.digest() for name, split in splits.items() if split is not None}

    def check_loaders(self, models: Mapping[str, Mapping[str, bool]], ignore_index: int = IGNORE_INDEX) -> None:
        """Check the first batches of loaders; ``models`` has the parameters of each model.

        Also note the :attr:`highest` target of each split.

        Raises:
            DataError: batches lack a required argument of a model, or targets of validation or test differ in shape
                from batch to batch.
        """
        if self.train.loader is not None:
            loader_checks.check_arguments(self.train.loader, models)
        for name, split in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            seen = [] if split is None or split.targets is None else [torch.from_numpy(split.targets)]
            if split is not None and split.loader is not None and name != "train":
                batches = self.feed(split, SharedParameters(*models.values())).once()
                looked = islice(loader_checks.with_equal_targets(batches, name), loader_checks.LOOKED_AT)
                seen = [batch.targets for batch in looked if batch.targets is not None]
            counted = [each[each != ignore_index] for each in seen if not each.is_floating_point()]
            labels = [int(each.max()) for each in counted if each.numel()]
            self.highest.update({name: max(labels)} if labels else {})

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
        """Return a split as a feed of rank ``rank`` of ``world``.

        Batches of arrays have ``batch`` examples over all ranks, and may be augmented; those of a loader have the
        arguments in ``parameters``, name -> whether it is required.
        """
        if split.loader is not None:
            return LoaderFeed(split.loader, parameters, seed=seed, rank=rank, world=world)
        names: tuple[str, ...] = split.names
        inputs: tuple[Any, ...] = split.inputs
        if names and parameters:
            raw = read_raw_batch(dict(zip(names, inputs, strict=True)), parameters)
            names, inputs = raw.names, raw.inputs
        return ArrayFeed(
            inputs,
            split.targets,
            batch=batch,
            prepare=preprocessor(self.use.preprocessing),
            augment=self.data.augment if augment else (),
            seed=seed,
            rank=rank,
            world=world,
            names=names,
        )

    def calibration(self, parameters: Mapping[str, bool]) -> CalibrationInputs:
        """Return ``data.calibration`` training examples as inputs, drawn with the data's seed; a loader's first ones.

        Raises:
            DataError: there are fewer than two examples, or an input is not finite.
        """
        feed = self.feed(self.train, parameters, batch=_BATCH, seed=self.data.seed)
        batches = feed.once()
        if isinstance(feed, ArrayFeed):
            draw = np.random.RandomState(derive_seed(self.data.seed, "calibration") % 2**32)
            order = torch.from_numpy(draw.permutation(feed.examples).astype(np.int64))
            batches = (feed.at(part, torch.zeros_like(part)) for part in order.split(_BATCH))
        try:
            return collect_inputs((RawBatch(batch.names, batch.inputs) for batch in batches), self.data.calibration)
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from error


def load_splits(data: DataSpec, folder: Path, *, task: str | None, metric: str) -> DataSplits:
    """Return the splits of a recipe's data; paths are relative to ``folder``, and ``task`` defaults to the data's own.

    Raises:
        SpecError: a field of the spec does not suit the source.
        DataError: examples are missing or have the wrong form.
    """
    items = _user_items(data, folder)
    train, test = (read_split(items[name], name) for name in ("train", "test"))
    validation = None if items["validation"] is None else read_split(items["validation"], "validation")
    if validation is None and data.validation != 0:
        train, validation = _hold_out(train, data)
    if test.targets is None and test.loader is None:
        raise DataError("recipe.data.source: the test split has no targets; models cannot be tested without")
    known = items["train"] if isinstance(items["train"], Dataset) else None
    use = FileInfo(
        preprocessing=_preprocessing(data, known, train),
        task=task or (known.task if known else None),
        class_names=known.class_names if known else (),
        metric=metric,
    )
    return DataSplits(known.name if known else _name_of(data.source), train, validation, test, use, data)


def _user_items(data: DataSpec, folder: Path) -> dict[str, Any]:
    """Return split -> the user's object; validation is None if absent, or if a share is to be held out."""
    source = data.source
    if isinstance(source, Mapping):
        for split in source:
            if split not in _SPLITS:
                raise SpecError(f"recipe.data.source: {UnknownName('split', str(split), _SPLITS)}")
        items = {split: source.get(split) for split in _SPLITS}
    elif isinstance(source, str):
        own = data.validation == "own"
        items = {split: _load(data, folder, split) if split != "validation" or own else None for split in _SPLITS}
    else:
        items = dict.fromkeys(_SPLITS) | {"train": source}
    for split in ("train", "test"):
        if items[split] is None:
            raise DataError(f"recipe.data.source: the {split} split is missing; give {{train: ..., test: ...}}")
    if data.validation == "own" and items["validation"] is None:
        raise DataError("recipe.data.validation: own needs a split 'validation', which the source lacks; use a share")
    return items


def _load(data: DataSpec, folder: Path, split: str) -> Any:
    source = data.source
    word, _, argument = source.partition(":")
    if word == TEXT:
        return _tokenized(read_texts(str(folder / expand_path(argument)), split), data, folder)
    if word in set(DATASETS):
        return load_dataset(f"{word}:{folder / Path(argument).expanduser()}" if argument else source, split)
    load_object(source)  # an import may draw random numbers
    seed_everything(derive_seed(data.seed, "data", split))
    with prefixed_errors("recipe.data.source"):
        return call_factory(source, split)


def _tokenized(texts: Texts, data: DataSpec, folder: Path) -> dict[str, NDArray[Any]]:
    """Return texts as arrays ``(N, max_length)`` by argument, and ``labels``."""
    assert data.tokenizer is not None
    tokenizer = Tokenizer(str(folder / expand_path(data.tokenizer.removeprefix(HF))), data.max_length)
    (arrays,) = tokenizer.batches(texts, len(texts), fixed=True)
    targets = texts.targets(tokenizer.classes)
    return arrays if targets is None else arrays | {TARGETS[0]: targets}


def _hold_out(train: Split, data: DataSpec) -> tuple[Split, Split | None]:
    """Return training and validation examples; a loader cannot be split and keeps all."""
    if train.loader is not None:
        if data.validation is not None:
            raise SpecError(
                f"recipe.data.validation: {data.validation} cannot be held out of a {type(train.loader).__name__}; use "
                "own, which calls the factory with split='validation', or 0"
            )
        return train, None
    share = _SHARE if data.validation is None else float(data.validation)
    # Stratified by class if each example has one integer label.
    labels = train.targets
    whole = labels is not None and labels.ndim == 1 and labels.dtype == np.int64
    positions = np.arange(len(train.inputs[0]), dtype=np.int64)
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


def _name_of(source: Any) -> str:
    if isinstance(source, str):
        path, _, name = source.rpartition(":")
        return f"{Path(path).name}:{name}" if path else name
    return "examples given as objects"
