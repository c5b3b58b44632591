"""Single examples as people have them (a data set, a list, one example), and the batches made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, default_collate

from attar._src.core.errors import AttarError, DataError, place_of, short_message
from attar._src.core.fields import named_fields
from attar._src.train.inputs import is_numbers


def is_array(value: Any) -> bool:
    """Return whether a value is an array or a tensor."""
    return isinstance(value, torch.Tensor | np.ndarray)


def is_whole(data: Any, parameters: Mapping[str, bool]) -> bool:
    """Return whether data are inputs of all examples rather than batches or examples.

    ``[a, b]`` are two inputs if the forward can take two, ``(x, y)`` inputs and labels.
    """
    if is_numbers(data):
        return True
    if isinstance(data, tuple):
        return bool(data) and (_are_inputs(data) or _are_nested(data))
    if isinstance(data, list):
        endless = any(name.startswith("*") for name in parameters)
        return bool(data) and all(map(is_array, data)) and (endless or len(data) <= len(parameters))
    # A dataclass that is iterated is a loader.
    iterated = isinstance(data, Iterable) and not isinstance(data, Mapping)
    return is_array(data) or (named_fields(data) is not None and not iterated)


def _are_inputs(data: tuple[Any, ...]) -> bool:
    """Return whether a tuple is inputs by position: tensors, or tuples of them after the first: ``(x, (h, c))``."""
    return is_array(data[0]) and all(is_array(each) or isinstance(each, tuple) for each in data)


def _are_nested(data: tuple[Any, ...]) -> bool:
    """Return whether a tuple is nested inputs and perhaps labels: ``({"x": x}, y)``, ``((x, lengths),)``."""
    nested = isinstance(data[0], Mapping) or (isinstance(data[0], tuple) and all(map(is_array, data[0])))
    return nested and (len(data) == 1 or (len(data) == 2 and is_array(data[1])))


def holds_samples(data: Any) -> bool:
    """Return whether data is a data set: it has a length and items by number, or is PyTorch's ``IterableDataset``."""
    if isinstance(data, IterableDataset):
        return True
    numbered = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return numbered and not isinstance(data, tuple | list | Mapping | str) and not is_array(data)


def is_sample(item: Any) -> bool:
    """Return whether an item is certainly one example: ``(image, 3)``, or fields without a common axis 0."""
    leaves = list(_leaves(item))
    scalars = [leaf for leaf in leaves if not is_array(leaf) or leaf.ndim == 0]
    return bool(scalars) or len({len(leaf) for leaf in leaves}) > 1


def _leaves(item: Any) -> Iterator[Any]:
    """Yield the numbers and tensors in an item."""
    fields = named_fields(item)
    if fields is not None:
        item = list(fields.values())
    if isinstance(item, tuple | list) and not is_numbers(item):
        for each in item:
            yield from _leaves(each)
    elif is_array(item) or isinstance(item, bool | int | float | np.number):
        yield item
    elif is_numbers(item):
        yield np.empty(len(item))


def one_example(item: Any) -> Any:
    """Return arrays ``(...)`` of one example as arrays ``(1, ...)`` of a batch."""
    if is_array(item):
        return item[None]
    fields = named_fields(item)
    if fields is not None:
        return {name: one_example(each) for name, each in fields.items()}
    return tuple(map(one_example, item)) if isinstance(item, tuple) else item


def collated(samples: Iterable[Any], batch: int, collate: Callable[[list[Any]], Any] | None = None) -> Iterator[Any]:
    """Yield batches of ``batch`` examples, made by ``collate`` or :func:`collate_examples`.

    Raises:
        DataError: the examples differ in shape, or ``collate`` fails.
    """
    samples = iter(samples)
    while part := list(islice(samples, batch)):
        try:
            yield collate_examples(part) if collate is None else collate(part)
        except AttarError:
            raise
        except Exception as error:
            # The user's function may raise anything.
            place = place_of(error)
            at = f" ({place})" if place else ""
            raise DataError(f"collate raised {short_message(error)} for {len(part)} examples{at}") from error


def collate_examples(examples: list[Any]) -> Any:
    """Return PyTorch's ``default_collate`` of examples, fields of None left out.

    Raises:
        DataError: the examples differ in shape, or hold what no tensor can be made of.
    """
    try:
        return default_collate([_without_none(each) for each in examples])
    except Exception as error:
        raise DataError(
            f"{len(examples)} examples do not make a batch: {short_message(error)}; if they differ in length, pad "
            "them: give a DataLoader with a collate_fn, or attar.quantize(..., collate=f), f: list of examples -> batch"
        ) from error


def _without_none(sample: Any) -> Any:
    fields = named_fields(sample)
    return sample if fields is None else {name: each for name, each in fields.items() if each is not None}


def replayable(data: Any) -> Callable[[], Iterator[Any]]:
    """Return a function that iterates data from its first item, also if it is a generator, each item drawn once."""
    items = iter(data) if hasattr(data, "__iter__") else (data[index] for index in range(len(data)))
    seen: list[Any] = []

    def replay() -> Iterator[Any]:
        place = 0
        while True:
            if place == len(seen):
                try:
                    seen.append(next(items))
                except StopIteration:
                    return
            yield seen[place]
            place += 1

    return replay
