"""Calibration inputs: a user's arrays, tensors, data set or batches as batches of a module's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from attar._src.core.errors import DataError, user_code
from attar._src.deploy.samples import collated, holds_samples, is_array, is_sample, is_whole, one_example, replayable
from attar._src.train.inputs import as_input, read_raw_inputs
from attar._src.work.compressed_model import CalibrationInputs

#: The names of a batch's inputs, none if they are positional, and the inputs.
NamedInputs = tuple[tuple[str, ...], tuple[Tensor, ...]]
#: Whether a module computes on a batch: 0 if it raises, 1 if it does, 2 if its output also has the batch's axis 0.
Fits = Callable[[NamedInputs], int]
#: A way to read data as batches.
_Way = Callable[[], Iterable[NamedInputs]]


def calibration_inputs(
    data: Any,
    parameters: Mapping[str, bool],
    *,
    examples: int,
    batch: int,
    collate: Callable[[list[Any]], Any] | None = None,
    fits: Fits | None = None,
) -> CalibrationInputs:
    """Return up to ``examples`` real inputs in batches, with the names of the arguments they are.

    ``data`` is one of

    - an array or a tensor: axis 0 counts examples;
    - a tuple, list, mapping or dataclass instance of them: the module's inputs, all with the same axis 0, and labels,
      which are ignored;
    - a data set (``torch.utils.data.Dataset``, anything with a length and items) or a list of examples, of which
      ``collate`` makes batches, by default PyTorch's own ``default_collate``;
    - an iterable of batches (a DataLoader, a list of mappings), each in one of the forms of ``train.inputs``; labels
      are ignored.

    Arrays and examples are put into batches of ``batch``. ``parameters``: argument of the forward -> is it required?
    Where data can be read in two ways, such as a list of tensors (examples or batches?), ``fits`` decides: the first
    way whose batches the module computes on.

    Raises:
        DataError: as :func:`collect_inputs`; an input is no tensor; a required argument is missing; both ways fit.
    """
    ways = _ways(data, parameters, batch, collate)
    chosen = ways[0] if fits is None or len(ways) == 1 else _fitting(ways, fits, data)
    return collect_inputs(chosen(), examples, of_one=True).of(parameters)


def collect_inputs(batches: Iterable[NamedInputs], examples: int, *, of_one: bool = False) -> CalibrationInputs:
    """Return the first ``examples`` of batches ``(names, inputs)``, in types that files take.

    A single example is repeated if ``of_one`` allows it.

    Raises:
        DataError: there are fewer than two; an input is not finite; the names differ between batches.
    """
    names: tuple[str, ...] | None = None
    kept: list[tuple[Tensor, ...]] = []
    notes: dict[str, None] = {}
    seen = 0
    for own, raw in batches:
        if names not in (None, own):
            raise DataError(
                f"a batch has the inputs {list(own)} and the first had {list(names or ())}; give all the same"
            )
        names = own
        notes |= dict.fromkeys(_conversions(own, raw))
        kept.append(tuple(as_input(tensor[: examples - seen]) for tensor in raw))
        if any(tensor.is_floating_point() and not torch.isfinite(tensor).all() for tensor in kept[-1]):
            raise DataError("the inputs have NaN or infinity; remove such examples")
        seen += len(kept[-1][0])
        if seen >= examples:
            break
    if seen == 1 and of_one:
        kept = [tuple(tensor.repeat_interleave(2, 0) for tensor in kept[-1])]
        notes["there is one example, so the ranges of activations come from it alone; give a few hundred"] = None
    elif seen < 2:
        raise DataError("calibration and comparison need at least two examples; give more data")
    return CalibrationInputs(tuple(kept), names or (), tuple(notes))


def check_lengths(inputs: CalibrationInputs, dynamic: Sequence[int]) -> None:
    """Refuse batches whose inputs differ in length along an axis that is not in ``dynamic``.

    Raises:
        DataError: it has the axes to write.
    """
    names = inputs.names or tuple(f"input {place}" for place in range(len(inputs.batches[0])))
    for place, name in enumerate(names):
        shapes = {tuple(batch[place].shape) for batch in inputs.batches}
        if len({len(shape) for shape in shapes}) > 1:
            raise DataError(f"{name} has batches of the shapes {_some(shapes)}; give all the same number of axes")
        sizes = list(zip(*shapes, strict=True))
        varying = [axis for axis in range(1, len(sizes)) if len(set(sizes[axis])) > 1 and axis not in dynamic]
        if varying:
            axes = tuple(sorted({*dynamic, *varying}))
            raise DataError(
                f"{name} has batches of the shapes {_some(shapes)}, and the file would have one length along axis "
                f"{varying[0]}: write dynamic={axes} (on the command line {' '.join(f'--dynamic {a}' for a in axes)}), "
                "or pad all to one length"
            )


def _some(shapes: set[tuple[int, ...]]) -> str:
    return " and ".join(map(str, sorted(shapes)[:2]))


def _conversions(names: tuple[str, ...], raw: tuple[Tensor, ...]) -> Iterator[str]:
    for place, tensor in enumerate(raw):
        made = as_input(tensor[:0]).dtype
        if made != tensor.dtype:
            name = names[place] if names else f"input {place}"
            kinds = [str(kind).removeprefix("torch.") for kind in (tensor.dtype, made)]
            yield f"{name} came in {kinds[0]}; it is {kinds[1]} in the file, and so should be what it is run on"


def _ways(
    data: Any, parameters: Mapping[str, bool], batch: int, collate: Callable[[list[Any]], Any] | None
) -> list[_Way]:
    """Return the ways to read data as batches, the likeliest first."""
    if collate is None and is_whole(data, parameters):
        item = data if isinstance(data, tuple | list) else (data,)
        ways: list[_Way] = [
            lambda: _whole(item, parameters, batch),
            lambda: _whole(one_example(item), parameters, batch),
        ]
        several = isinstance(data, tuple) and len(parameters) == 1 and len(data) > 1
        return [*ways, lambda: _whole((data,), parameters, batch)] if several else ways
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

    def samples() -> Iterator[NamedInputs]:
        return (_read(item, parameters) for item in collated(_each(items()), batch, collate))

    def batches() -> Iterator[NamedInputs]:
        return (_read(item, parameters) for item in _each(items()))

    if collate is not None or holds_samples(data):
        return [samples]
    if hasattr(data, "__len__") and not isinstance(data, list | tuple):
        return [batches]
    return [samples, batches] if is_sample(first) else [batches, samples]


def _fitting(ways: list[_Way], fits: Fits, data: Any) -> _Way:
    """Return the way that fits best, of equal ones the first; a list of tensors must fit one way alone."""
    scores = [_score(way, fits) for way in ways]
    best = max(scores)
    if isinstance(data, list) and is_array(data[0]) and data[0].ndim > 1 and scores.count(best) > 1 and best:
        raise DataError(
            f"data is a list of {len(data)} tensors of the shape {tuple(data[0].shape)}, and the module computes on "
            "them as batches and as examples: write torch.cat(data) if they are batches, torch.stack(data) if each is "
            "one example"
        )
    return ways[scores.index(best)] if best else ways[0]


def _score(way: _Way, fits: Fits) -> int:
    try:
        names, raw = next(iter(way()))
    except (DataError, StopIteration):
        return 0
    return fits((names, tuple(map(as_input, raw))))


def _read(item: Any, parameters: Mapping[str, bool]) -> NamedInputs:
    return read_raw_inputs(item, parameters)


def _each(items: Iterator[Any]) -> Iterator[Any]:
    """Yield the items of a user's iterable, whose errors name it."""
    while True:
        with user_code("the data"):
            batch = list(islice(items, 1))
        if not batch:
            return
        yield batch[0]


def _whole(item: Any, parameters: Mapping[str, bool], batch: int) -> Iterator[NamedInputs]:
    names, whole = read_raw_inputs(item, parameters, whole=True)
    counts = [len(tensor) for tensor in whole]
    if len(set(counts)) > 1:
        raise DataError(f"the inputs have {counts} examples; give all of them the same number")
    return ((names, part) for part in zip(*(tensor.split(batch) for tensor in whole), strict=True))
