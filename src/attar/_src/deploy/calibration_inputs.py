"""What users hand over as data (arrays, tensors, DataLoaders) as batches of positional inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from attar._src.core.errors import DataError
from attar._src.work.compressed_model import CalibrationInputs


def calibration_inputs(data: Any, *, names: Sequence[str], examples: int, batch: int) -> CalibrationInputs:
    """Return up to ``examples`` real inputs in batches.

    ``data`` is one of

    - an array or a tensor: the first axis counts examples;
    - a tuple, list or mapping of them: the module's inputs, all with the same first axis;
    - an iterable of batches (a DataLoader): each a tensor or a mapping, or a tuple or list whose first entry is the
      input (or a tuple, list or mapping of several) and whose rest (labels) is not looked at.

    Mappings are matched with the arguments of the module's forward by name; other keys (labels) are not looked at.
    Inputs are what the module takes: already preprocessed.

    Args:
        data: as above.
        names: the arguments of the module's forward.
        examples: how many examples, at most.
        batch: how many in a batch, where ``data`` is not batched.

    Raises:
        DataError: there are fewer than two examples, an input is no tensor or is not finite, or keys do not match.
    """
    if isinstance(data, Mapping):
        data = _by_name(data, names)
    if _is_tensor(data):
        whole: tuple[torch.Tensor, ...] = (_tensor(data),)
    elif isinstance(data, tuple | list) and data and all(_is_tensor(item) for item in data):
        whole = tuple(_tensor(item) for item in data)
    else:
        return _from_batches(data, names, examples)
    count = min(len(tensor) for tensor in whole)
    if any(len(tensor) != count for tensor in whole):
        raise DataError(f"inputs of {[len(tensor) for tensor in whole]} examples do not go together")
    count = min(count, examples)
    starts = range(0, count, batch)
    return _checked([tuple(tensor[i : min(i + batch, count)] for tensor in whole) for i in starts])


def _by_name(batch: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Return a mapping's values in the order of the forward's arguments."""
    known = [name for name in names if name in batch]
    if not known or tuple(known) != tuple(names[: len(known)]):
        raise DataError(f"a batch has the keys {sorted(map(str, batch))}; the module's forward takes {list(names)}")
    return tuple(batch[name] for name in known)


def _from_batches(data: Any, names: Sequence[str], examples: int) -> CalibrationInputs:
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
            first = _by_name(first, names)
        inputs = tuple(_tensor(value) for value in first) if isinstance(first, tuple | list) else (_tensor(first),)
        batches.append(tuple(tensor[: examples - seen] for tensor in inputs))
        seen += len(batches[-1][0])
        if seen >= examples:
            break
    return _checked(batches)


def _checked(batches: list[tuple[torch.Tensor, ...]]) -> CalibrationInputs:
    if any(tensor.is_floating_point() and not torch.isfinite(tensor).all() for batch in batches for tensor in batch):
        raise DataError("the inputs hold NaN or infinity; a model cannot be calibrated on them")
    if sum(len(batch[0]) for batch in batches) < 2:
        raise DataError("at least two examples are needed to calibrate and to compare; give more data")
    return CalibrationInputs(tuple(batches))


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
