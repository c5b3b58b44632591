"""Calibration inputs: a user's arrays, tensors, data set or batches as batches of a module's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from attar._src.core.errors import DataError, user_code
from attar._src.core.fields import first_arguments
from attar._src.data.axes import Dynamic, batch_axes
from attar._src.deploy.samples import collated, holds_samples, is_array, is_sample, is_whole, one_example, replayable
from attar._src.train.inputs import RawBatch, as_input, labels_of, read_raw_batch
from attar._src.work.calibration_inputs import BatchInputs, CalibrationInputs

#: The names of a batch's inputs, none if they are positional, and the inputs.
NamedInputs = tuple[tuple[str, ...], BatchInputs]
#: Whether a module computes on a batch: 0 if it raises, 1 if it does, FITS if its output also has the batch's axis 0.
FITS = 2
Fits = Callable[[NamedInputs], int]
#: A way to read data as batches.
_Way = Callable[[], Iterable[RawBatch]]
#: Examples on which a module is tried: a way to read data that fits fits so few.
_FEW = 4
#: Names and the inputs of all batches -> the axis of each input that counts examples.
_FindAxes = Callable[[Sequence[str], Sequence[BatchInputs]], tuple[int, ...]]


def calibration_inputs(
    data: Any,
    parameters: Mapping[str, bool],
    *,
    examples: int,
    batch: int,
    dynamic: Dynamic = None,
    collate: Callable[[list[Any]], Any] | None = None,
    fits: Fits | None = None,
) -> CalibrationInputs:
    """Return up to ``examples`` real inputs in batches, with the names of the arguments they are.

    ``data`` is one of

    - an array or a tensor: axis 0 counts examples;
    - a tuple, list, mapping or dataclass instance of them: the module's inputs, with the same number of examples along
      their batch axes (``data.axes``), and perhaps labels;
    - a data set (``torch.utils.data.Dataset``, anything with a length and items) or a list of examples, of which
      ``collate`` makes batches, by default PyTorch's own ``default_collate``;
    - an iterable of batches (a DataLoader, a list of mappings), each in one of the forms of ``train.inputs``.

    Labels become the ``targets`` of the result, if they are a tensor with an entry for each example.

    Arrays and examples are put into batches of ``batch``. ``parameters``: argument of the forward -> is it required?
    ``dynamic`` may name the batch axes of inputs. Where data can be read in two ways, such as a list of tensors
    (examples or batches?), ``fits`` decides: the first way whose batches the module computes on.

    Raises:
        DataError: as :func:`collect_inputs`; an input is no tensor; a required argument is missing; both ways fit.
    """

    def find(names: Sequence[str], batches: Sequence[BatchInputs]) -> tuple[int, ...]:
        return _axes(dynamic, names or first_arguments(parameters, len(batches[0])), batches)

    ways = _ways(data, parameters, batch, collate, find)
    chosen = ways[0] if fits is None or len(ways) == 1 else _fitting(ways, fits, find, data)
    return collect_inputs(chosen(), examples, axes=find, of_one=True).of(parameters)


def _axes(dynamic: Dynamic, names: Sequence[str], batches: Sequence[BatchInputs]) -> tuple[int, ...]:
    return batch_axes(dynamic, names, [[tuple(tensor.shape) for tensor in batch] for batch in batches])


def collect_inputs(
    batches: Iterable[RawBatch], examples: int, axes: _FindAxes | None = None, *, of_one: bool = False
) -> CalibrationInputs:
    """Return the first ``examples`` of batches, in types that files take.

    Args:
        batches: as they were read.
        examples: how many.
        axes: names and all batches -> the axis of each input that counts examples; by default as ``data.axes`` finds.
        of_one: whether a single example is enough.

    Raises:
        DataError: there are fewer than two; an input is not finite; the names differ between batches.
    """
    names: tuple[str, ...] | None = None
    kept: list[BatchInputs] = []
    targets: list[Tensor | None] = []
    notes: dict[str, None] = {}
    find = axes or partial(_axes, None)
    seen = 0
    for raw in batches:
        own = raw.names
        if names not in (None, own):
            raise DataError(
                f"a batch has the inputs {list(own)} and the first had {list(names or ())}; give all the same"
            )
        names = own
        notes |= dict.fromkeys(_notes(raw))
        inputs = tuple(map(as_input, raw.inputs))
        for place, tensor in enumerate(inputs):
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                faults, of = int((~torch.isfinite(tensor)).sum()), own[place] if own else f"input {place}"
                raise DataError(
                    f"the inputs have NaN or infinity: {faults} of {tensor.numel()} elements of {of} in batch "
                    f"{len(kept)}; remove or repair such examples"
                )
        kept.append(inputs)
        count = inputs[0].shape[find(own, [inputs])[0]]
        targets.append(labels_of(raw.targets, count))
        seen += count
        if seen >= examples:
            break
    if seen == 1 and of_one:
        notes["there is one example, so ranges and figures come from it alone; give a few hundred"] = None
    elif seen < 2:
        raise DataError("calibration and comparison need at least two examples; give more data")
    labels = tuple(each for each in targets if each is not None)
    labels = labels if len(labels) == len(kept) else ()
    found = CalibrationInputs(tuple(kept), names or (), find(names or (), kept), tuple(notes), labels)
    return found.first(examples, cut=True)


def _notes(raw: RawBatch) -> Iterator[str]:
    """Yield what a user should know of how a batch was read."""
    if raw.ignored:
        many = len(raw.ignored) > 1
        are, them = ("are no arguments", "them") if many else ("is no argument", "it")
        yield f"{', '.join(raw.ignored)} {are} of the module's forward, which does not see {them}"
    for place, tensor in enumerate(raw.inputs):
        made = as_input(tensor[:0]).dtype
        if made != tensor.dtype:
            name = raw.names[place] if raw.names else f"input {place}"
            kinds = [str(kind).removeprefix("torch.") for kind in (tensor.dtype, made)]
            yield f"{name} came in {kinds[0]}; it is {kinds[1]} in the file, and so should be what it is run on"


def _ways(
    data: Any,
    parameters: Mapping[str, bool],
    batch: int,
    collate: Callable[[list[Any]], Any] | None,
    find: _FindAxes,
) -> list[_Way]:
    """Return the ways to read data as batches, the likeliest first."""
    if collate is None and is_whole(data, parameters):
        item = data if isinstance(data, tuple | list) else (data,)
        ways: list[_Way] = [
            lambda: _whole(item, parameters, batch, find),
            lambda: _whole(one_example(item), parameters, batch, find),
        ]
        several = isinstance(data, tuple) and len(parameters) == 1 and len(data) > 1
        return [*ways, lambda: _whole((data,), parameters, batch, find)] if several else ways
    if (not isinstance(data, Iterable) and not holds_samples(data)) or isinstance(data, str):
        raise DataError(
            f"data is {type(data).__name__}; give an array, a tensor, a tuple or mapping of them, a data set, or a "
            "DataLoader"
        )
    with user_code(f"data ({type(data).__name__})"):
        items = replayable(data)
        first = next(items(), None)
    if first is None:
        raise DataError(f"data is an empty {type(data).__name__}; give at least two examples")

    def samples() -> Iterator[RawBatch]:
        return (read_raw_batch(item, parameters) for item in collated(_each(items()), batch, collate))

    def batches() -> Iterator[RawBatch]:
        return (read_raw_batch(item, parameters) for item in _each(items()))

    if collate is not None or holds_samples(data):
        return [samples]
    if hasattr(data, "__len__") and not isinstance(data, list | tuple):
        return [batches]
    return [samples, batches] if is_sample(first) else [batches, samples]


def _fitting(ways: list[_Way], fits: Fits, find: _FindAxes, data: Any) -> _Way:
    """Return the way that fits best, of equal ones the first; a list of tensors must fit one way alone."""
    alone = isinstance(data, list) and is_array(data[0]) and data[0].ndim > 1
    scores: list[int] = []
    for way in ways:
        scores.append(_score(way, fits, find))
        if scores[-1] == FITS and not alone:
            break
    best = max(scores)
    if alone and scores.count(best) > 1 and best:
        raise DataError(
            f"data is a list of {len(data)} tensors of the shape {tuple(data[0].shape)}, and the module computes on "
            "them as batches and as examples: write torch.cat(data) if they are batches, torch.stack(data) if each is "
            "one example"
        )
    return ways[scores.index(best)] if best else ways[0]


def _score(way: _Way, fits: Fits, find: _FindAxes) -> int:
    """Return how the first examples of the first batch fit, or the whole batch where they do not."""
    try:
        raw = next(iter(way()))
    except (DataError, StopIteration):
        return 0
    batch = tuple(map(as_input, raw.inputs))
    try:
        axes = find(raw.names, [raw.inputs])
    except DataError:
        # A batch that the module computes on is read rightly, and the error is due to the user.
        return fits((raw.names, batch))
    few = tuple(tensor.narrow(axis, 0, min(_FEW, tensor.shape[axis])) for tensor, axis in zip(batch, axes, strict=True))
    return fits((raw.names, few)) or fits((raw.names, batch))


def _each(items: Iterator[Any]) -> Iterator[Any]:
    """Yield the items of a user's iterable, whose errors name it."""
    while True:
        with user_code("the data"):
            batch = list(islice(items, 1))
        if not batch:
            return
        yield batch[0]


def _whole(item: Any, parameters: Mapping[str, bool], batch: int, find: _FindAxes) -> Iterator[RawBatch]:
    raw = read_raw_batch(item, parameters, whole=True)
    axes = find(raw.names, [raw.inputs])
    parts = [tensor.split(batch, axis) for tensor, axis in zip(raw.inputs, axes, strict=True)]
    labels = labels_of(raw.targets, raw.inputs[0].shape[axes[0]])
    targets = [None] * len(parts[0]) if labels is None else labels.split(batch)
    return (replace(raw, inputs=tuple(part), targets=own) for *part, own in zip(*parts, targets, strict=True))
