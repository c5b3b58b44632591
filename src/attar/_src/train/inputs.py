"""Read batches of any form: a module's arguments by name or by position, and targets.

| a batch                                         | inputs                            | targets            |
|-------------------------------------------------|-----------------------------------|--------------------|
| a tensor or array                               | the first argument                | none               |
| ``(inputs,)``, ``(inputs, targets)``            | one of the other forms            | the second entry   |
| a tuple or list of tensors in place of a tensor | the first arguments               |                    |
| tensors alone, as many as the forward can take  | the first arguments               | none, see below    |
| a mapping, dataclass instance or named tuple    | arguments by name; None is skipped| by name, see below |

Tensors alone are inputs as far as the forward can take them: with ``forward(ids, mask)``, ``(ids, mask)`` has no
targets and ``(ids, mask, y)`` has. Two tensors are inputs and targets wherever the forward can do with one.

Targets by name are the first of ``targets``, ``target``, ``labels``, ``label`` and ``y`` that is not an argument; else
the first but ``y`` that is an optional argument (``labels`` of Hugging Face: a module computes its own loss with it, a
file has no use for it). Other fields are ignored; ``RawBatch.ignored`` names them.

An argument may be a tuple or a mapping of tensors: with ``forward(inputs)`` and ``x, lengths = inputs``, the batch
``((x, lengths), y)`` gives the inputs ``inputs_0`` and ``inputs_1``.

``parameters`` maps the arguments of a module's forward, in order, to whether they are required.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar._src.core.errors import DataError
from attar._src.core.fields import argument_of, first_arguments, named_fields, python_word
from attar._src.data.axes import batch_axes
from attar._src.train.batch import Batch

#: Names of a batch's targets, the likeliest first.
TARGETS = ("targets", "target", "labels", "label", "y")
#: Integers that a file does not take -> the smallest that holds them.
_WIDER = {torch.int16: torch.int32, torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


@dataclass(frozen=True)
class RawBatch:
    """A batch in the types it came in (:func:`as_input`).

    Attributes:
        names: of the inputs, none if they are positional.
        inputs: in the order of the forward.
        targets: as they came, of any type; None if there are none.
        ignored: fields of a mapping that are neither.
    """

    names: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    targets: Any = None
    ignored: tuple[str, ...] = ()


class SharedParameters(dict[str, bool]):
    """The arguments of several models -> whether one of them requires it.

    Inputs by position belong to each model's own first arguments, so their number follows from each model alone.

    Attributes:
        least, most: how many inputs by position a batch has.
    """

    def __init__(self, *models: Mapping[str, bool]) -> None:
        super().__init__()
        for parameters in models:
            for name, required in parameters.items():
                self[name] = self.get(name, False) or required
        self.least = max((_counts(each)[0] for each in models), default=0)
        self.most = max((_counts(each)[1] for each in models), default=0)


def _counts(parameters: Mapping[str, bool]) -> tuple[int, float]:
    """Return how many inputs by position a forward requires, and how many it can take."""
    if isinstance(parameters, SharedParameters):
        return parameters.least, parameters.most
    endless = any(name.startswith("*") for name in parameters)
    return sum(parameters.values()), float("inf") if endless else len(parameters)


def read_batch(item: Any, parameters: Mapping[str, bool]) -> Batch:
    """Return an item of a loader as a batch; integer targets become int64, floating-point tensors float32.

    Raises:
        DataError: it has none of the forms above, lacks a required argument, or its tensors differ in length.
    """
    raw = read_raw_batch(item, parameters)
    inputs, targets = tuple(map(as_input, raw.inputs)), raw.targets
    if targets is not None:
        targets = as_input(as_tensor(targets, "targets"))
        targets = targets if targets.is_floating_point() else targets.long()
    if not _together(inputs, targets):
        given = "no targets" if targets is None else f"targets {tuple(targets.shape)}"
        raise DataError(f"a batch has inputs {[tuple(each.shape) for each in inputs]} and {given}; axis 0 must agree")
    return Batch(inputs, targets, names=raw.names)


def _together(inputs: Sequence[Tensor], targets: Tensor | None) -> bool:
    """Return whether all have the same number of examples, inputs along their batch axes (``data.axes``)."""
    try:
        batch_axes(None, (), [[tuple(each.shape) for each in inputs]])
    except DataError:
        return False
    return targets is None or len(targets) == len(inputs[0])


def read_inputs(item: Any, parameters: Mapping[str, bool]) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Return the names and inputs of :func:`read_raw_batch`, in the types that files take."""
    raw = read_raw_batch(item, parameters)
    return raw.names, tuple(map(as_input, raw.inputs))


def read_raw_batch(item: Any, parameters: Mapping[str, bool], *, whole: bool = False) -> RawBatch:
    """Return a batch of one of the forms above; ``whole``: two tensors are two inputs if the forward can take both.

    Raises:
        DataError: it has none of the forms, or lacks a required argument.
    """
    fields, targets = _fields(item, parameters), None
    if fields is None and isinstance(item, tuple | list) and not is_numbers(item):
        if not item:
            raise DataError("a batch is empty; give inputs, or a pair of inputs and targets")
        item, targets = _apart(item, parameters, whole=whole)
        fields = _fields(item, parameters)
    if fields is None:
        names, values = _by_position(item, parameters)
        places = names or tuple(f"input {place}" for place in range(len(values)))
        return RawBatch(names, tuple(map(as_tensor, values, places)), targets)
    target = _target_name(fields, parameters) if targets is None else None
    targets = fields[target] if target is not None else targets
    names, inputs = _by_name(fields, parameters, target)
    return RawBatch(names, inputs, targets, _ignored(fields, {*names, *map(python_word, names)}, target))


def _ignored(fields: Mapping[str, Any], taken: Collection[str], target: str | None) -> tuple[str, ...]:
    """Return the fields that are neither the targets nor among the inputs ``taken``, nor have entries that are."""
    return tuple(
        name
        for name, value in fields.items()
        if value is not None
        and name != target
        and name not in taken
        and not any(entry in taken for entry, _ in _entries(name, value))
    )


def _apart(item: Sequence[Any], parameters: Mapping[str, bool], *, whole: bool) -> tuple[Any, Any]:
    """Return the inputs and the targets, or None, of a tuple or list."""
    first, count = item[0], len(item)
    if count == 1:
        return first, None
    if not all(map(_is_tensor, item)) or not parameters:
        if count > 2 and not whole:
            raise DataError(f"a batch of {count} entries; write ((first, second, ...), targets)")
        return (item, None) if whole and not _is_pair(item) else (first, item[1])
    least, most = _counts(parameters)
    inputs, labelled = least <= count <= most, least <= count - 1 <= most
    if inputs and labelled and count > 2 and not whole:
        raise DataError(
            f"a batch of {count} tensors, and the forward takes {_listed(parameters)}: the last may be an input or "
            "targets; write ((first, second, ...), targets), or a mapping by name"
        )
    if inputs and (whole or not labelled):
        return item, None
    if labelled:
        return item[: count - 1], item[count - 1]
    pair = "(x, y)" if most == 1 else "((first, second, ...), targets)"
    raise DataError(
        f"a batch of {count} tensors does not fit: the forward takes {_listed(parameters)}; write {pair} with targets "
        "y; if an argument is a tuple, one in its place: ((first, second), y)"
    )


def _is_pair(item: Sequence[Any]) -> bool:
    """Return whether a tuple is nested inputs and targets: ``((x, lengths), y)`` or ``({"x": x}, y)``."""
    return len(item) == 2 and not _is_tensor(item[0]) and (item[1] is None or _is_tensor(item[1]))


def _by_position(item: Any, parameters: Mapping[str, bool]) -> tuple[tuple[str, ...], list[Any]]:
    """Return the tensors of positional inputs, with names if an argument is a tuple or a mapping."""
    values = list(item) if isinstance(item, tuple | list) and not is_numbers(item) else [item]
    if len(values) > 1 and _counts(parameters)[1] == 1:
        values = [tuple(values)]  # the one argument is a tuple
    if all(map(_is_tensor, values)) or not parameters:
        return (), values
    names = first_arguments(parameters, len(values))
    if len(names) < len(values):
        raise DataError(f"a batch of {len(values)} inputs does not fit: the forward takes {_listed(parameters)}")
    entries = [entry for name, value in zip(names, values, strict=True) for entry in _entries(name, value)]
    return tuple(name for name, _ in entries), [value for _, value in entries]


def _by_name(
    batch: Mapping[str, Any], parameters: Mapping[str, bool], target: str | None
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    fields = {name: value for name, value in batch.items() if name != target}
    inner = {entry: each for name, value in fields.items() for entry, each in _entries(name, value)}
    entries: dict[str, Any] = {}
    for name in parameters:
        # A file may call its inputs h_0 and h_1, which are entries of an argument h, or input_1, which is input.
        source = next((each for each in (name, python_word(name)) if fields.get(each) is not None), None)
        found = (
            [(name, inner[name])] if source is None and name in inner else _entries(name, fields.get(source or name))
        )
        entries |= found
    names = tuple(entries)
    taken = {argument_of(name, parameters) for name in names}
    missing = [name for name, required in parameters.items() if required and name not in taken]
    if missing or not names:
        lacks = f"lacks {', '.join(missing)}" if missing else "has no argument of it"
        raise DataError(f"a batch with the keys {sorted(batch)} {lacks}: the forward takes {_listed(parameters)}")
    return names, tuple(as_tensor(value, f"argument {name!r}") for name, value in entries.items())


def _entries(name: str, value: Any) -> list[tuple[str, Any]]:
    """Return the inputs of an argument: itself, or the entries of a tuple or mapping; None has none."""
    if value is None:
        return []
    fields = named_fields(value)
    if fields is None and isinstance(value, tuple | list) and not is_numbers(value):
        fields = {str(place): each for place, each in enumerate(value)}
    if fields is None:
        return [(name, value)]
    return [(f"{name}_{key}", each) for key, each in fields.items() if each is not None]


def arguments_taken(parameters: Mapping[str, bool], names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the inputs that a module takes of a batch with ``count`` inputs, in the order of its forward.

    Raises:
        DataError: a required argument is not in the batch, or there are more positional inputs than arguments.
    """
    owners = {name: argument_of(name, parameters, names) for name in names or first_arguments(parameters, count)}
    taken = tuple(name for each in parameters for name, owner in owners.items() if owner == each)
    missing = [name for name, required in parameters.items() if required and name not in owners.values()]
    if missing or (not names and len(taken) < count) or not taken:
        given = f"the inputs {', '.join(names)}" if names else f"{count} input{'s' * (count != 1)}"
        lacks = f"lacks {', '.join(missing)}" if missing else "does not fit"
        raise DataError(f"a batch of {given} {lacks}: the forward takes {_listed(parameters)}")
    return taken


def labels_of(targets: Any, examples: int) -> Tensor | None:
    """Return targets as int64 or float32, one for each example; None if they are anything else, such as boxes."""
    if not _is_tensor(targets):
        return None
    try:
        found = as_tensor(targets, "targets")
    except DataError:
        return None
    found = found.float() if found.is_floating_point() else found.long()
    return found if len(found) == examples and bool(torch.isfinite(found).all()) else None


def as_input(raw: Tensor) -> Tensor:
    """Return a tensor in a type that files take: floating point as float32, int16 as int32, uint32 as int64."""
    return raw.float() if raw.is_floating_point() else raw.to(_WIDER.get(raw.dtype, raw.dtype))


def as_tensor(value: Any, what: str = "a value") -> Tensor:
    """Return an array, tensor or nested list of numbers with an axis of examples as a tensor on the CPU.

    It is not copied if that is safe.
    """
    if is_numbers(value):
        value = _array(value, what)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        # PyTorch takes neither other byte orders nor long doubles.
        kind = np.dtype(np.float64) if value.dtype == np.longdouble else value.dtype.newbyteorder("=")
        value = value.astype(kind, copy=False)
        value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
    if not isinstance(value, Tensor) or value.dim() == 0 or value.is_complex():
        arrived = type(value).__name__
        arrived += f" of {value.dtype}" if hasattr(value, "dtype") else ""
        arrived += " of shape ()" if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 else ""
        nested = isinstance(value, tuple | list) or named_fields(value) is not None
        hint = "; give each tensor as an argument of its own" if nested else ""
        raise DataError(
            f"{what}: a tensor or array with a first axis of examples, of real numbers, was expected, {arrived} arrived"
            f"{hint}"
        )
    if value.is_sparse or value.layout != torch.strided or value.is_nested:
        raise DataError(f"{what} is a {value.layout} tensor; give a dense one: .to_dense(), or to_padded_tensor(0.0)")
    return value.detach().cpu()


def _array(value: Any, what: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
        # Python's floats have no width of their own.
        return array.astype(np.float32) if array.dtype.kind == "f" else array
    except ValueError as error:
        raise DataError(
            f"{what} is a list of lists of different lengths ({error}); pad them to one length, as tokenizer(..., "
            "padding=True, return_tensors='pt') does"
        ) from error


def is_numbers(value: Any) -> bool:
    """Return whether a value is a list of numbers, nested or not."""
    if not isinstance(value, list):
        return False
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, bool | int | float | np.number | np.bool_)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) or is_numbers(value)


def _fields(item: Any, parameters: Mapping[str, bool]) -> dict[str, Any] | None:
    """Return the fields of a batch by name; a named tuple without any argument of the module is a tuple."""
    fields = named_fields(item)
    return None if isinstance(item, tuple) and fields is not None and not fields.keys() & set(parameters) else fields


def _target_name(fields: Mapping[str, Any], parameters: Mapping[str, bool]) -> str | None:
    given = [name for name in TARGETS if fields.get(name) is not None]
    optional = (name for name in given if not parameters.get(name, False) and name != "y")
    return next((name for name in given if name not in parameters), next(optional, None))


def _listed(parameters: Mapping[str, bool]) -> str:
    return ", ".join(name if required else f"[{name}]" for name, required in parameters.items()) or "no arguments"
