"""Calibration inputs: a user's arrays, tensors or DataLoaders as batches of a module's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from attar._src.core.errors import DataError
from attar._src.core.fields import first_arguments, named_fields
from attar._src.data.axes import Dynamic, batch_axes
from attar._src.train.inputs import read_inputs
from attar._src.work.calibration_inputs import BatchInputs, CalibrationInputs


def calibration_inputs(
    data: Any, parameters: Mapping[str, bool], *, examples: int, batch: int, dynamic: Dynamic = None
) -> CalibrationInputs:
    """Return up to ``examples`` real inputs in batches, with the names of the arguments they are.

    ``data`` is one of

    - an array or a tensor: axis 0 counts examples;
    - a tuple, list, mapping or dataclass instance of them: the module's inputs, with the same number of examples along
      their batch axes (``data.axes``);
    - an iterable of batches (a DataLoader, a list of mappings), each in one of the forms of ``train.inputs``; labels
      are ignored.

    Arrays are cut into batches of ``batch`` examples. ``parameters``: argument of the forward -> is it required?
    ``dynamic`` may name the batch axes of inputs.

    Raises:
        DataError: as :func:`collect_inputs`; an input is no tensor; a required argument is missing.
    """
    if _is_whole(data):
        names, whole = read_inputs((data,), parameters)
        axes = _axes(dynamic, names or first_arguments(parameters, len(whole)), [whole])
        parts = zip(*(tensor.split(batch, axis) for tensor, axis in zip(whole, axes, strict=True)), strict=True)
        return collect_inputs(((names, part) for part in parts), examples, axes=lambda *_: axes).of(parameters)
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise DataError(
            f"data is {type(data).__name__}; give an array, a tensor, a tuple or mapping of them, or a DataLoader"
        )

    def axes_of(names: Sequence[str], batches: Sequence[BatchInputs]) -> tuple[int, ...]:
        return _axes(dynamic, names or first_arguments(parameters, len(batches[0])), batches)

    return collect_inputs((read_inputs(item, parameters) for item in data), examples, axes=axes_of).of(parameters)


def _axes(dynamic: Dynamic, names: Sequence[str], batches: Sequence[BatchInputs]) -> tuple[int, ...]:
    return batch_axes(dynamic, names, [[tuple(tensor.shape) for tensor in batch] for batch in batches])


def collect_inputs(
    batches: Iterable[tuple[tuple[str, ...], BatchInputs]],
    examples: int,
    axes: Callable[[Sequence[str], Sequence[BatchInputs]], tuple[int, ...]] | None = None,
) -> CalibrationInputs:
    """Return the first ``examples`` of batches ``(names, inputs)``.

    Args:
        batches: names, none if by position, and inputs.
        examples: how many.
        axes: names and all batches -> the axis of each input that counts examples; by default as ``data.axes`` finds.

    Raises:
        DataError: there are fewer than two; an input is not finite; the names differ between batches.
    """
    names: tuple[str, ...] | None = None
    kept: list[BatchInputs] = []
    find = axes or partial(_axes, None)
    seen = 0
    for own, inputs in batches:
        if names not in (None, own):
            raise DataError(
                f"a batch has the inputs {list(own)} and the first had {list(names or ())}; give all the same"
            )
        names = own
        if any(tensor.is_floating_point() and not torch.isfinite(tensor).all() for tensor in inputs):
            raise DataError("the inputs have NaN or infinity; remove such examples")
        kept.append(inputs)
        seen += inputs[0].shape[find(own, [inputs])[0]]
        if seen >= examples:
            break
    if seen < 2:
        raise DataError("calibration and comparison need at least two examples; give more data")
    found = CalibrationInputs(tuple(kept), names or (), find(names or (), kept))
    return found.first(examples, cut=True)


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
