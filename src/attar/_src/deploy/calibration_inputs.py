"""Calibration inputs: a user's arrays, tensors or DataLoaders as batches of a module's inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from attar._src.core.errors import DataError
from attar._src.core.fields import named_fields
from attar._src.train.inputs import read_inputs
from attar._src.work.compressed_model import CalibrationInputs


def calibration_inputs(data: Any, parameters: Mapping[str, bool], *, examples: int, batch: int) -> CalibrationInputs:
    """Return up to ``examples`` real inputs in batches, with the names of the arguments they are.

    ``data`` is one of

    - an array or a tensor: axis 0 counts examples;
    - a tuple, list, mapping or dataclass instance of them: the module's inputs, all with the same axis 0;
    - an iterable of batches (a DataLoader, a list of mappings), each in one of the forms of ``train.inputs``; labels
      are ignored.

    Inputs should be preprocessed, as the module takes them.

    Args:
        data: as above.
        parameters: the arguments of the module's forward -> whether they are required.
        examples: largest number of examples.
        batch: examples per batch, if ``data`` is not batched.

    Raises:
        DataError: there are fewer than two examples; an input is no tensor or is not finite; batches differ in their
            inputs; a required argument is missing.
    """
    if _is_whole(data):
        names, whole = read_inputs((data,), parameters)
        counts = [len(tensor) for tensor in whole]
        if len(set(counts)) > 1:
            raise DataError(f"the inputs have {counts} examples; give all of them the same number")
        count = min(counts[0], examples)
        starts = range(0, count, batch)
        batches = [tuple(tensor[i : min(i + batch, count)] for tensor in whole) for i in starts]
    else:
        names, batches = _from_batches(data, parameters, examples)
    if any(tensor.is_floating_point() and not torch.isfinite(tensor).all() for batch in batches for tensor in batch):
        raise DataError("the inputs have NaN or infinity; remove such examples")
    if sum(len(batch[0]) for batch in batches) < 2:
        raise DataError("calibration and comparison need at least two examples; give more data")
    return CalibrationInputs(tuple(batches), names).of(parameters)


def _is_whole(data: Any) -> bool:
    """Return whether the data are inputs of all examples rather than batches."""
    if isinstance(data, tuple | list):
        return bool(data) and all(map(_is_tensor, data))
    # A dataclass that is iterated is a loader.
    iterated = isinstance(data, Iterable) and not isinstance(data, Mapping)
    return _is_tensor(data) or (named_fields(data) is not None and not iterated)


def _from_batches(
    data: Any, parameters: Mapping[str, bool], examples: int
) -> tuple[tuple[str, ...], list[tuple[torch.Tensor, ...]]]:
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise DataError(
            f"data is {type(data).__name__}; give an array, a tensor, a tuple or mapping of them, or a DataLoader"
        )
    names: tuple[str, ...] | None = None
    batches, seen = [], 0
    for item in data:
        own, inputs = read_inputs(item, parameters)
        if names is not None and own != names:
            raise DataError(f"a batch has the inputs {list(own)} and the first had {list(names)}; give all the same")
        names = own
        batches.append(tuple(tensor[: examples - seen] for tensor in inputs))
        seen += len(batches[-1][0])
        if seen >= examples:
            break
    return names or (), batches


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)
