"""Inputs: the one reading of a batch, whatever its form: a module's arguments by name or by position, and targets.

| a batch                                         | inputs                            | targets            |
|-------------------------------------------------|-----------------------------------|--------------------|
| a tensor or array                               | the first argument                | none               |
| ``(inputs,)``, ``(inputs, targets)``            | one of the other forms            | the second entry   |
| a tuple or list of tensors in place of a tensor | the first arguments               |                    |
| a mapping, dataclass instance or named tuple    | arguments by name; None is skipped| by name, see below |

Targets by name are the first of ``targets``, ``target``, ``labels``, ``label`` and ``y`` that is no argument; else the
first but ``y`` that is an optional argument (``labels`` of Hugging Face: a module computes its own loss with it, a file
has no use for it). Other fields are not looked at.

``parameters`` are the arguments of a module's forward in order -> whether they are required, as
``model.entry.forward_parameters`` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar._src.core.errors import DataError
from attar._src.core.fields import first_arguments, named_fields
from attar._src.train.batch import Batch

_TARGETS = ("targets", "target", "labels", "label", "y")


def read_batch(item: Any, parameters: Mapping[str, bool]) -> Batch:
    """Return what a loader gives as a batch; integer targets are int64, floating tensors float32.

    Raises:
        DataError: it has none of the forms above, lacks a required argument, or its tensors differ in length.
    """
    names, inputs = read_inputs(item, parameters)
    targets = _targets(item, parameters)
    if targets is not None:
        targets = as_input(as_tensor(targets, "targets"))
        targets = targets if targets.is_floating_point() else targets.long()
    if len({len(each) for each in (*inputs, *([] if targets is None else [targets]))}) > 1:
        given = "no targets" if targets is None else f"targets {tuple(targets.shape)}"
        raise DataError(f"a batch has inputs {[tuple(each.shape) for each in inputs]} and {given}; axis 0 must agree")
    return Batch(inputs, targets, names=names)


def read_inputs(item: Any, parameters: Mapping[str, bool]) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Return the inputs of a batch in the order of ``parameters`` and their names; no names where it has none.

    Raises:
        DataError: as :func:`read_batch`; targets are not looked at.
    """
    item = _opened(item, parameters)
    fields = _fields(item, parameters)
    target = None if fields is None else _target_name(fields, parameters)
    if fields is None and isinstance(item, tuple | list):
        item = item[0]
        fields = _fields(item, parameters)
    if fields is None:
        values = item if isinstance(item, tuple | list) else (item,)
        return (), tuple(as_input(as_tensor(each, f"input {n}")) for n, each in enumerate(values))
    names = tuple(name for name in parameters if fields.get(name) is not None and name != target)
    missing = [name for name, required in parameters.items() if required and name not in names]
    if missing or not names:
        lacks = f"lacks {', '.join(missing)}" if missing else "has no argument of it"
        raise DataError(f"a batch with the keys {sorted(fields)} {lacks}: the forward takes {_listed(parameters)}")
    return names, tuple(as_input(as_tensor(fields[name], f"argument {name!r}")) for name in names)


def arguments_taken(parameters: Mapping[str, bool], names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the arguments that a module takes of a batch, in the order of its forward.

    Args:
        parameters: those of its forward.
        names: the names of the batch's inputs; none where they are by position.
        count: how many inputs the batch has.

    Raises:
        DataError: a required argument is not among them, or there are more inputs by position than arguments.
    """
    taken = tuple(n for n in parameters if n in names) if names else first_arguments(parameters, count)
    missing = [name for name, required in parameters.items() if required and name not in taken]
    if missing or (not names and len(taken) < count) or not taken:
        given = f"the inputs {', '.join(names)}" if names else f"{count} input{'s' * (count != 1)}"
        lacks = f"lacks {', '.join(missing)}" if missing else "does not fit"
        raise DataError(f"a batch of {given} {lacks}: the forward takes {_listed(parameters)}")
    return taken


def as_input(raw: Tensor) -> Tensor:
    """Return a tensor as it is, in float32 where it is floating."""
    return raw.float() if raw.is_floating_point() else raw


def as_tensor(value: Any, what: str = "a value") -> Tensor:
    """Return an array or tensor as a tensor on the CPU, without a copy where that is safe.

    Raises:
        DataError: it is neither, or has no axis of examples.
    """
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


def _opened(item: Any, parameters: Mapping[str, bool]) -> Any:
    """Return what a tuple or list of a single mapping, dataclass instance or named tuple holds."""
    if isinstance(item, tuple | list) and not item:
        raise DataError("a batch is empty; give inputs, or a pair of inputs and targets")
    single = isinstance(item, tuple | list) and len(item) == 1 and _fields(item[0], parameters) is not None
    return item[0] if single else item


def _fields(item: Any, parameters: Mapping[str, bool]) -> dict[str, Any] | None:
    """Return the fields of a batch by name; a named tuple without any argument of the module is a tuple."""
    fields = named_fields(item)
    return None if isinstance(item, tuple) and fields is not None and not fields.keys() & set(parameters) else fields


def _target_name(fields: Mapping[str, Any], parameters: Mapping[str, bool]) -> str | None:
    given = [name for name in _TARGETS if fields.get(name) is not None]
    optional = (name for name in given if not parameters.get(name, False) and name != "y")
    return next((name for name in given if name not in parameters), next(optional, None))


def _targets(item: Any, parameters: Mapping[str, bool]) -> Any:
    item = _opened(item, parameters)
    fields = _fields(item, parameters)
    if fields is not None:
        name = _target_name(fields, parameters)
        return None if name is None else fields[name]
    if not isinstance(item, tuple | list):
        return None
    if len(item) > 2:
        raise DataError(f"a batch of {len(item)} entries; write ((first, second, ...), targets)")
    return item[1] if len(item) == 2 else None


def _listed(parameters: Mapping[str, bool]) -> str:
    return ", ".join(name if required else f"[{name}]" for name, required in parameters.items()) or "no arguments"
