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

    Arrays are cut into batches of ``batch`` examples. ``parameters``: argument of the forward -> is it required?

    Raises:
        DataError: as :func:`collect_inputs`; an input is no tensor; a required argument is missing.
    """
    if _is_whole(data):
        names, whole = read_inputs((data,), parameters)
        counts = [len(tensor) for tensor in whole]
        if len(set(counts)) > 1:
            raise DataError(f"the inputs have {counts} examples; give all of them the same number")
        parts = zip(*(tensor.split(batch) for tensor in whole), strict=True)
        return collect_inputs(((names, part) for part in parts), examples).of(parameters)
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise DataError(
            f"data is {type(data).__name__}; give an array, a tensor, a tuple or mapping of them, or a DataLoader"
        )
    return collect_inputs((read_inputs(item, parameters) for item in data), examples).of(parameters)


def collect_inputs(
    batches: Iterable[tuple[tuple[str, ...], tuple[torch.Tensor, ...]]], examples: int
) -> CalibrationInputs:
    """Return the first ``examples`` of batches ``(names, inputs)``.

    Raises:
        DataError: there are fewer than two; an input is not finite; the names differ between batches.
    """
    names: tuple[str, ...] | None = None
    kept: list[tuple[torch.Tensor, ...]] = []
    seen = 0
    for own, inputs in batches:
        if names not in (None, own):
            raise DataError(
                f"a batch has the inputs {list(own)} and the first had {list(names or ())}; give all the same"
            )
        names = own
        kept.append(tuple(tensor[: examples - seen] for tensor in inputs))
        if any(tensor.is_floating_point() and not torch.isfinite(tensor).all() for tensor in kept[-1]):
            raise DataError("the inputs have NaN or infinity; remove such examples")
        seen += len(kept[-1][0])
        if seen >= examples:
            break
    if seen < 2:
        raise DataError("calibration and comparison need at least two examples; give more data")
    return CalibrationInputs(tuple(kept), names or ())


def _is_whole(data: Any) -> bool:
    """Return whether the data are inputs of all examples rather than batches."""
    if isinstance(data, tuple | list):
        return bool(data) and all(map(is_array, data))
    # A dataclass that is iterated is a loader.
    iterated = isinstance(data, Iterable) and not isinstance(data, Mapping)
    return is_array(data) or (named_fields(data) is not None and not iterated)


def is_array(value: Any) -> bool:
    """Return whether a value is an array or a tensor."""
    return isinstance(value, torch.Tensor | np.ndarray)
