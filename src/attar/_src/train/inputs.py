"""Read batches of any form: a module's arguments by name or by position, and targets.

| a batch                                         | inputs                            | targets            |
|-------------------------------------------------|-----------------------------------|--------------------|
| a tensor or array                               | the first argument                | none               |
| ``(inputs,)``, ``(inputs, targets)``            | one of the other forms            | the second entry   |
| a tuple or list of tensors in place of a tensor | the first arguments               |                    |
| a mapping, dataclass instance or named tuple    | arguments by name; None is skipped| by name, see below |

Targets by name are the first of ``targets``, ``target``, ``labels``, ``label`` and ``y`` that is not an argument; else
the first but ``y`` that is an optional argument (``labels`` of Hugging Face: a module computes its own loss with it, a
file has no use for it). Other fields are ignored.

``parameters`` maps the arguments of a module's forward, in order, to whether they are required.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar._src.core.errors import DataError
from attar._src.core.fields import first_arguments, named_fields
from attar._src.data.axes import batch_axes
from attar._src.train.batch import Batch

_TARGETS = ("targets", "target", "labels", "label", "y")


def read_batch(item: Any, parameters: Mapping[str, bool]) -> Batch:
    """Return an item of a loader as a batch; integer targets become int64, floating-point tensors float32.

    Raises:
        DataError: it has none of the forms above, lacks a required argument, or its tensors differ in length.
    """
    names, inputs, rest = _read(item, parameters)
    if len(rest) > 1:
        raise DataError(f"a batch of {1 + len(rest)} entries; write ((first, second, ...), targets)")
    targets = rest[0] if rest else None
    if targets is not None:
        targets = as_input(as_tensor(targets, "targets"))
        targets = targets if targets.is_floating_point() else targets.long()
    if not _together(inputs, targets):
        given = "no targets" if targets is None else f"targets {tuple(targets.shape)}"
        raise DataError(f"a batch has inputs {[tuple(each.shape) for each in inputs]} and {given}; axis 0 must agree")
    return Batch(inputs, targets, names=names)


def _together(inputs: Sequence[Tensor], targets: Tensor | None) -> bool:
    """Return whether all have the same number of examples, inputs along their batch axes (``data.axes``)."""
    try:
        batch_axes(None, (), [[tuple(each.shape) for each in inputs]])
    except DataError:
        return False
    return targets is None or len(targets) == len(inputs[0])


def read_inputs(item: Any, parameters: Mapping[str, bool]) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Return the names of a batch's inputs, none if they are positional, and the inputs in the order of the forward."""
    names, inputs, _ = _read(item, parameters)
    return names, inputs


def _read(item: Any, parameters: Mapping[str, bool]) -> tuple[tuple[str, ...], tuple[Tensor, ...], list[Any]]:
    """Return names, inputs and the raw targets, in a list with any entries after them."""
    fields, target, rest = _fields(item, parameters), None, list[Any]()
    if fields is None and isinstance(item, tuple | list):
        if not item:
            raise DataError("a batch is empty; give inputs, or a pair of inputs and targets")
        item, *rest = item
        fields = _fields(item, parameters)
    if fields is None:
        values = item if isinstance(item, tuple | list) else (item,)
        return (), tuple(as_input(as_tensor(each, f"input {n}")) for n, each in enumerate(values)), rest
    if not rest and (target := _target_name(fields, parameters)) is not None:
        rest = [fields[target]]
    names = tuple(name for name in parameters if fields.get(name) is not None and name != target)
    missing = [name for name, required in parameters.items() if required and name not in names]
    if missing or not names:
        lacks = f"lacks {', '.join(missing)}" if missing else "has no argument of it"
        raise DataError(f"a batch with the keys {sorted(fields)} {lacks}: the forward takes {_listed(parameters)}")
    return names, tuple(as_input(as_tensor(fields[name], f"argument {name!r}")) for name in names), rest


def arguments_taken(parameters: Mapping[str, bool], names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the arguments that a module takes of a batch with ``count`` inputs, in the order of its forward.

    Raises:
        DataError: a required argument is not in the batch, or there are more positional inputs than arguments.
    """
    taken = tuple(n for n in parameters if n in names) if names else first_arguments(parameters, count)
    missing = [name for name, required in parameters.items() if required and name not in taken]
    if missing or (not names and len(taken) < count) or not taken:
        given = f"the inputs {', '.join(names)}" if names else f"{count} input{'s' * (count != 1)}"
        lacks = f"lacks {', '.join(missing)}" if missing else "does not fit"
        raise DataError(f"a batch of {given} {lacks}: the forward takes {_listed(parameters)}")
    return taken


def as_input(raw: Tensor) -> Tensor:
    """Return a tensor, floating-point types in float32."""
    return raw.float() if raw.is_floating_point() else raw


def as_tensor(value: Any, what: str = "a value") -> Tensor:
    """Return an array or tensor with an axis of examples as a tensor on the CPU, without a copy if that is safe."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
    if not isinstance(value, Tensor) or value.dim() == 0:
        nested = isinstance(value, tuple | list) or named_fields(value) is not None
        hint = "; give each tensor as an argument of its own" if nested else ""
        raise DataError(
            f"{what}: a tensor or array with a first axis of examples was expected, {type(value).__name__} arrived"
            f"{hint}"
        )
    return value.detach().cpu()


def _fields(item: Any, parameters: Mapping[str, bool]) -> dict[str, Any] | None:
    """Return the fields of a batch by name; a named tuple without any argument of the module is a tuple."""
    fields = named_fields(item)
    return None if isinstance(item, tuple) and fields is not None and not fields.keys() & set(parameters) else fields


def _target_name(fields: Mapping[str, Any], parameters: Mapping[str, bool]) -> str | None:
    given = [name for name in _TARGETS if fields.get(name) is not None]
    optional = (name for name in given if not parameters.get(name, False) and name != "y")
    return next((name for name in given if name not in parameters), next(optional, None))


def _listed(parameters: Mapping[str, bool]) -> str:
    return ", ".join(name if required else f"[{name}]" for name, required in parameters.items()) or "no arguments"
