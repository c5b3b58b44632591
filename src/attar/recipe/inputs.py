"""What users hand over as data (arrays, tensors, DataLoaders) as batches of positional inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from attar.core.errors import DataError
from attar.work.workpiece import Calibration


def calibration(data: Any, *, examples: int, batch: int) -> Calibration:
    """Return up to ``examples`` real inputs in batches.

    ``data`` is one of

    - an array or a tensor: the first axis counts examples;
    - a tuple or list of them: the module's positional inputs, all with the same first axis;
    - an iterable of batches (a DataLoader): each a tensor, or a tuple or list whose first entry is the input and whose
      rest (labels) is not looked at, or whose first entry is itself a tuple, list or mapping of several inputs.

    Inputs are what the module takes: already preprocessed.

    Raises:
        DataError: there are fewer than two examples, or an input is no tensor.
    """
    if _is_tensor(data):
        whole: tuple[torch.Tensor, ...] = (_tensor(data),)
    elif isinstance(data, tuple | list) and data and all(_is_tensor(item) for item in data):
        whole = tuple(_tensor(item) for item in data)
    else:
        return _from_batches(data, examples)
    count = min(len(tensor) for tensor in whole)
    if any(len(tensor) != count for tensor in whole):
        raise DataError(f"inputs of {[len(tensor) for tensor in whole]} examples do not go together")
    count = min(count, examples)
    # A last batch of one would be a batch size the trace may have taken for a constant.
    starts = range(0, count, batch)
    return _checked([tuple(tensor[i : min(i + batch, count)] for tensor in whole) for i in starts])


def _from_batches(data: Any, examples: int) -> Calibration:
    if not isinstance(data, Iterable):
        raise DataError(
            f"data is {type(data).__name__}; an array, a tensor, a tuple of them or a DataLoader was expected"
        )
    batches, seen = [], 0
    for item in data:
        first = item
        if isinstance(item, tuple | list):
            first = item[0]
        if isinstance(first, Mapping):
            first = list(first.values())
        inputs = tuple(_tensor(value) for value in first) if isinstance(first, tuple | list) else (_tensor(first),)
        batches.append(tuple(tensor[: examples - seen] for tensor in inputs))
        seen += len(batches[-1][0])
        if seen >= examples:
            break
    return _checked(batches)


def _checked(batches: list[tuple[torch.Tensor, ...]]) -> Calibration:
    if sum(len(batch[0]) for batch in batches) < 2:
        raise DataError("at least two examples are needed to calibrate and to compare; give more data")
    return Calibration(tuple(batches))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, torch.Tensor) or value.dim() == 0:
        raise DataError(
            f"an input is {type(value).__name__}; a tensor or array with a first axis of examples was expected"
        )
    return (
        value.detach().cpu().float()
        if value.dtype in (torch.float64, torch.float16, torch.bfloat16)
        else value.detach().cpu()
    )
