"""Checks of the test split before any training: shapes, types, and labels that the models can give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from attar._src.core.errors import DataError
from attar._src.data.axes import Dynamic
from attar._src.measure.class_layout import ClassLayout, fitting_axes
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


def check_labels(
    splits: DataSplits, model: str, outputs: Sequence[int], targets: Sequence[int], layout: ClassLayout
) -> None:
    """Refuse labels that are no class of a model before it is trained.

    ``outputs`` and ``targets`` are shapes. Yes-or-no outputs have no classes.

    Raises:
        DataError: a split has a label of at least the number of classes.
    """
    if not splits.has_classes or not outputs or layout.is_binary(outputs, targets):
        return
    if layout.axis is None and len(fitting_axes(outputs, targets)) != 1:
        return
    classes = outputs[layout.axis_of(outputs, targets)]
    for split, highest in splits.highest.items():
        if highest >= classes:
            raise DataError(
                f"{split} has the label {highest}, and models.{model} has {classes} outputs, for the labels 0 to "
                f"{classes - 1}; give the model more outputs, number the labels from 0, or set ignore_index to a label "
                "that does not count"
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
