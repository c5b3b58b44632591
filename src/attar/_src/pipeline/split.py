"""A split of a recipe's data, read from what people have: arrays, mappings of arrays, data sets, loaders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from attar._src.core.digest import digest
from attar._src.core.errors import DataError
from attar._src.core.fields import named_fields
from attar._src.data.dataset import Dataset
from attar._src.deploy.samples import collate_examples, holds_samples, is_array, is_sample
from attar._src.pipeline import loader_checks
from attar._src.train.inputs import TARGETS, as_tensor, is_numbers

_BATCH = 64  # examples in a batch of a data set


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split: raw arrays ``(N, ...)``, targets int64 or float32 ``(N, ...)``; or a loader of batches.

    ``names`` are the arguments that arrays were given as; none if by position.
    """

    inputs: tuple[NDArray[Any], ...] = ()
    targets: NDArray[Any] | None = None
    loader: Iterable[Any] | None = None
    names: tuple[str, ...] = ()

    @property
    def examples(self) -> int | None:
        """Number of examples; None if a loader does not tell."""
        return len(self.inputs[0]) if self.loader is None else loader_checks.count_examples(self.loader)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """Return the examples of arrays at ``indices``, in that order."""
        targets = None if self.targets is None else self.targets[indices]
        return replace(self, inputs=tuple(each[indices] for each in self.inputs), targets=targets)

    def digest(self) -> str:
        """Return the SHA-256 of the arrays, or of a loader's sizes and first batches."""
        if self.loader is not None:
            return loader_checks.loader_digest(self.loader)
        return digest(self.inputs if self.targets is None else (*self.inputs, self.targets))


def read_split(item: Any, name: str) -> Split:
    """Return a user's object as a split.

    | object                                                        | becomes                                      |
    |---------------------------------------------------------------|----------------------------------------------|
    | a Dataset of Attar, arrays ``x``, ``(x, y)``, ``((a, b), y)``, a ``TensorDataset`` of them | arrays, by position |
    | a mapping of arrays                                           | arrays by name, and targets: ``labels``, ... |
    | another data set, a list of examples                          | a DataLoader of batches of 64                |
    | a DataLoader, a list of batches                               | itself                                       |

    Raises:
        DataError: it is none of these, or its arrays differ in length.
    """
    if isinstance(item, Dataset):
        return Split((item.x,), item.y)
    if isinstance(item, TensorDataset) and len(item.tensors) <= 2:
        item = tuple(item.tensors) if len(item.tensors) == 2 else item.tensors[0]
    fields = None if isinstance(item, tuple) else named_fields(item)
    if fields is not None and not (isinstance(item, Iterable) and not isinstance(item, Mapping)):
        return _named(fields, name)
    x, y = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
    arrays = (x,) if is_array(x) else x
    labelled = y is None or is_array(y) or is_numbers(y)
    if labelled and isinstance(arrays, tuple | list) and arrays and all(map(is_array, arrays)):
        return _checked(Split(tuple(map(_array, arrays)), None if y is None else _targets(y, name)), name)
    if holds_samples(item) or (isinstance(item, list) and item and is_sample(item[0])):
        shuffle = name == "train" and not isinstance(item, IterableDataset)
        return Split(loader=DataLoader(item, batch_size=_BATCH, shuffle=shuffle, collate_fn=collate_examples))
    if isinstance(item, Iterable) and not isinstance(item, str | bytes):
        return Split(loader=item)
    raise DataError(
        f"recipe.data.source: {name} is a {type(item).__name__}; give a Dataset of Attar, arrays (x, y), a mapping of "
        "arrays by argument, a data set of PyTorch or a DataLoader"
    )


def _named(fields: Mapping[str, Any], name: str) -> Split:
    """Return the arrays of a mapping as inputs by name; the first of targets, labels, label, ... are the targets."""
    arrays = {key: value for key, value in fields.items() if is_array(value) or is_numbers(value)}
    target = next((key for key in TARGETS if key in arrays), None)
    inputs = {key: value for key, value in arrays.items() if key != target}
    if not inputs:
        raise DataError(
            f"recipe.data.source: {name} is a mapping with the keys {[*fields]} and no arrays of examples; write "
            "{'x': ..., 'labels': ...}, with the arguments of the module's forward as keys"
        )
    targets = None if target is None else _targets(arrays[target], name)
    return _checked(Split(tuple(map(_array, inputs.values())), targets, names=tuple(inputs)), name)


def _checked(split: Split, name: str) -> Split:
    known = dict(zip(split.names or [f"input {n}" for n in range(len(split.inputs))], split.inputs, strict=True))
    arrays = known | ({} if split.targets is None else {"targets": split.targets})
    if len({len(each) for each in arrays.values()}) > 1 or not len(split.inputs[0]):
        shapes = ", ".join(f"{each} {array.shape}" for each, array in arrays.items())
        raise DataError(
            f"recipe.data.source: {name} has {shapes}; axis 0 should count the same examples in all. A state "
            "(layers, batch, hidden) is read from batches: give a DataLoader that yields mappings"
        )
    for each, array in known.items():
        if array.dtype.kind == "f" and not (finite := np.isfinite(array.reshape(len(array), -1)).all(1)).all():
            raise DataError(
                f"recipe.data.source: {name} has NaN or infinity in {int((~finite).sum())} of {len(array)} examples of "
                f"{each}, first in example {int(finite.argmin())}; remove or repair them"
            )
    return split


def _array(value: Any) -> NDArray[Any]:
    tensor = as_tensor(value, "recipe.data.source: an array")
    return tensor.float().numpy() if tensor.dtype in (torch.float64, torch.bfloat16) else tensor.numpy()


def _targets(value: Any, name: str) -> NDArray[Any]:
    array = _array(value)
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise DataError(f"recipe.data.source: targets of {name} are {array.dtype}; finite numbers were expected")
    return array.astype(np.float32)
