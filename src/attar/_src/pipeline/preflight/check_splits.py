"""Checks of the test split before any training: shapes, types, and labels that the models can give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from attar._src.core.axes import Dynamic
from attar._src.core.errors import DataError
from attar._src.measure.accuracy import AccuracyMetric
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.split import Split


def check_test(splits: DataSplits, parameters: Mapping[str, bool], dynamic: Dynamic) -> None:
    """Refuse a test split whose inputs are not of the training split's types and shapes.

    Lengths may differ along axes that are ``dynamic``. Of loaders the first batches are compared, and lengths only if
    ``dynamic`` is given.

    Raises:
        DataError: it has both forms.
    """
    train, test = (_forms(splits, split, parameters) for split in (splits.train, splits.test))
    loaded = splits.train.loader is not None or splits.test.loader is not None
    for name in train.keys() & test.keys():
        (kind, shape), (other, found) = train[name], test[name]
        free = dynamic.get(name, ()) if isinstance(dynamic, Mapping) else dynamic or ()
        fixed = () if dynamic is None and loaded else [axis for axis in range(1, len(shape)) if axis not in free]
        if kind != other or len(shape) != len(found) or any(shape[axis] != found[axis] for axis in fixed):
            raise DataError(
                f"recipe.data.source: {name} of test is {_form(other, found)} per example, that of train "
                f"{_form(kind, shape)}; prepare both alike (axes that may differ in length go into dynamic)"
            )


def check_labels(splits: DataSplits, metric: str, model: str, outputs: Sequence[int]) -> None:
    """Refuse labels that are no class of a model, whose outputs have the shape ``outputs``, before it is trained.

    Labels are classes where the metric or the task says so and each has a row of outputs: ``(n, classes)`` for labels
    ``(n,)``. A model with one output has no classes.

    Raises:
        DataError: a split has a label of at least ``classes``.
    """
    classes = outputs[-1] if outputs else 1
    judged = metric == AccuracyMetric.name or splits.use.task == "classification"
    targets = splits.test.targets
    if not judged or classes < 2 or (targets is not None and targets.ndim != len(outputs) - 1):
        return
    for split, highest in splits.highest.items():
        if highest >= classes:
            raise DataError(
                f"recipe.data.source: {split} has the label {highest}, and models.{model} has {classes} outputs, for "
                f"the labels 0 to {classes - 1}; give the model more outputs, or number the labels from 0"
            )


def _forms(
    splits: DataSplits, split: Split, parameters: Mapping[str, bool]
) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Return the type and shape of each input in the first batch."""
    batch = next(iter(splits.feed(split, parameters, batch=2).once()))
    names = batch.names or tuple(f"input {place}" for place in range(len(batch.inputs)))
    return {name: (each.dtype, each.shape) for name, each in zip(names, batch.inputs, strict=True)}


def _form(kind: torch.dtype, shape: torch.Size) -> str:
    return f"{str(kind).removeprefix('torch.')} {tuple(shape[1:])}"
