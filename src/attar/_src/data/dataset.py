"""A split of a data set: raw examples, labels and preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set.

    Attributes:
        x: raw examples ``(n, ...)``: booleans, integers or finite floats, with the axes of ``preprocessing.layout``;
            images are uint8 ``(n, c, h, w)``.
        y: int64 labels, or None; ``(n,)`` and not negative for ``classification``, ``(n, ...)`` for another task.
        name: in messages and reports, such as ``"cifar10"``; not a path, which would tell of a machine.
        split: ``"train"``, ``"test"`` or another name.
        preprocessing: the usual one; None if raw examples are inputs.
        class_names: the name of each class, or empty.
        task: ``"classification"``, another word, or None.
        metric: name of the metric for the task, or None.

    Raises:
        DataError: an array has another form, or the arrays do not fit each other.
    """

    x: NDArray[Any]
    y: NDArray[np.int64] | None
    name: str
    split: str
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    task: str | None = "classification"
    metric: str | None = "accuracy"

    def __post_init__(self) -> None:
        if self.x.dtype.kind not in "biuf":
            raise self._error(f"x is of {self.x.dtype}; booleans, integers or floats were expected")
        if self.x.ndim == 0 or len(self.x) == 0:
            raise self._error(f"x has shape {self.x.shape}; at least one example along axis 0 was expected")
        if self.x.dtype.kind == "f" and not np.isfinite(self.x).all():
            raise self._error("x holds NaN or infinity")
        if self.preprocessing is not None and self.x.ndim != len(self.preprocessing.layout):
            raise self._error(f"x has shape {self.x.shape}, its preprocessing the layout {self.preprocessing.layout!r}")
        if self.y is not None:
            self._check_labels(self.y)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: NDArray[np.int64], *, split: str | None = None) -> Dataset:
        """Return the examples at ``indices``, in that order, as ``split`` if given."""
        y = None if self.y is None else self.y[indices]
        return replace(self, x=self.x[indices], y=y, split=split or self.split)

    def subset(self, n: int, seed: int = 0) -> Dataset:
        """Return ``n`` different random examples; the same seed gives the same ones."""
        if not 1 <= n <= len(self):
            raise self._error(f"a subset of {n} was asked for and there are {len(self)}; use 1 to {len(self)}")
        return self.take(_permutation(len(self), seed)[:n])

    def _check_labels(self, y: NDArray[np.int64]) -> None:
        if y.dtype != np.int64 or y.ndim == 0 or len(y) != len(self):
            raise self._error(f"{len(self)} labels of int64 were expected, {y.dtype}{y.shape} arrived")
        if self.task != "classification":
            return
        if y.ndim != 1:
            raise self._error(
                f"labels of classes have one axis, y has shape {y.shape}; set another task, such as "
                "'segmentation', or None for what fits the model's outputs"
            )
        if int(y.min()) < 0:
            raise self._error(f"class {int(y.min())} is negative")
        if self.class_names and int(y.max()) >= len(self.class_names):
            raise self._error(f"class {int(y.max())} is not below the {len(self.class_names)} class names")

    def _error(self, message: str) -> DataError:
        return DataError(f"{self.name} ({self.split}): {message}")


def as_labels(values: Any, *, where: str) -> NDArray[np.int64]:
    """Return integers or booleans of any type as int64, in their shape; errors say ``where`` they are from."""
    labels = np.asarray(values)
    if labels.dtype.kind not in "biu":
        raise DataError(f"{where}: labels are integers, {labels.dtype} arrived; convert them with .astype('int64')")
    if labels.dtype == np.uint64 and labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: the label {int(labels.max())} does not fit int64")
    return labels.astype(np.int64)


def dataset_of(x: NDArray[Any], y: NDArray[np.int64] | None, *, name: str, split: str) -> Dataset:
    """Return a data set of arrays that come without a word on them.

    One label for each example is a class; of several (tokens, pixels, answers) the model's outputs tell what they are.
    """
    if y is None or y.ndim == 1:
        return Dataset(x=x, y=y, name=name, split=split)
    return Dataset(x=x, y=y, name=name, split=split, task=None, metric=None)


def holdout(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split a set into ``train`` and ``validation``, both shuffled; the same seed gives the same two.

    ``round(fraction * n)`` of ``n`` examples are held out, stratified: each class keeps its share to within one
    example. Without one label per example they are drawn at random.
    """
    n = len(dataset)
    count = round(fraction * n) if 0 < fraction < 1 else 0
    if not 0 < count < n:
        raise DataError(f"{dataset.name}: holding out {fraction} of {n} examples leaves one side without any")
    order = _permutation(n, seed)
    by_class = order
    if dataset.y is not None and dataset.y.ndim == 1:
        by_class = order[np.argsort(dataset.y[order], kind="stable")]
    held = np.isin(order, by_class[np.arange(count) * n // count])
    return dataset.take(order[~held], split="train"), dataset.take(order[held], split="validation")


def _permutation(n: int, seed: int) -> NDArray[np.int64]:
    # The legacy generator: numpy guarantees that its stream never changes.
    return np.random.RandomState(seed).permutation(n).astype(np.int64)
