"""What files tell of the channels that were removed from their module, so that a module as it was before can follow.

A ``.attar`` file has it in the entries of its stages, a ``.safetensors`` file in its metadata: masks and numbers, no
code. What they mean follows from the module's own graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from attar._src.artifact.manifest import GraphRecord, Manifest, Port
from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import SpecError
from attar._src.core.fields import argument_of, python_word
from attar._src.core.tensors import DTYPES
from attar._src.data.axes import Axes
from attar._src.model.capture import capture
from attar._src.model.dependencies.record import removal_records, remove_recorded
from attar._src.model.interface import forward_parameters

_METADATA = "attar_removals"
_TYPES = {str(each).removeprefix("torch."): each for each in (torch.float32, torch.int64, torch.int32, torch.bool)}


def removals_of(manifest: Manifest) -> tuple[Mapping[str, Any], ...]:
    """Return the records of removals in order; empty for a file without."""
    stages = manifest.recipe.get("stages", [])
    removed = [stage.get("removed") for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return tuple(each for each in removed if isinstance(each, dict))


def follow_removals(
    module: nn.Module,
    removals: Sequence[Mapping[str, Any]],
    example: Sequence[torch.Tensor],
    names: Sequence[str] = (),
    dynamic: Sequence[int | Axes] = (),
    *,
    original: nn.Module | None = None,
) -> None:
    """Remove from a module, in place, what records tell; a module that has these records already stays as it is.

    ``original``: the module that this one is a float32 copy of, from which the same is removed.

    Raises:
        ModelError: the module has no such channels.
    """
    if [*removal_records(module)] == [*removals]:
        return
    for removal in removals:
        captured = capture(module, example, names=names, dynamic=dynamic, train=False)
        remove_recorded(module, captured, removal, copies=() if original is None else (original,))


def save_pruned(path: Path, module: nn.Module, example: Sequence[torch.Tensor], names: Sequence[str]) -> None:
    """Write the weights of a pruned module as ``.safetensors``, with the records of what was removed.

    ``attar quantize -w`` and recipes build the module as it was before and remove the same.
    """
    inputs = [[str(each.dtype).removeprefix("torch."), list(each.shape)] for each in example]
    told = {"removals": [dict(each) for each in removal_records(module)], "inputs": inputs, "names": [*names]}
    tensors = {name: each.contiguous() for name, each in _untied(module)}
    write_atomically(path, safetensors.torch.save(tensors, {_METADATA: json.dumps(told)}))


def follow_safetensors(path: Path, module: nn.Module) -> None:
    """Remove from a module, in place, what was removed before a ``.safetensors`` file was written.

    Raises:
        SpecError: the record is damaged.
        ModelError: the module has no such channels.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError:
        # What reads the weights says what is wrong with the file.
        return
    try:
        told = json.loads(metadata.get(_METADATA, "{}"))
        if not told:
            return
        example = [torch.zeros(shape, dtype=_TYPES[dtype]) for dtype, shape in told["inputs"]]
        removals, names = list(told["removals"]), list(told["names"])
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SpecError(f"{path}: its record of removed channels is damaged ({error})") from error
    follow_removals(module, removals, example, names)


def graph_inputs(graph: GraphRecord, module: nn.Module) -> tuple[tuple[torch.Tensor, ...], tuple[str, ...], list[Axes]]:
    """Return zeros for the inputs of a file's graph, the arguments of a module they are, and their axes."""
    example = tuple(torch.from_numpy(np.zeros(port.example or (), DTYPES[port.dtype])) for port in graph.inputs)
    axes = [Axes(port.batch_axis, _symbolic(port)) for port in graph.inputs]
    parameters = forward_parameters(module)
    known = tuple(_argument(port.name, parameters) for port in graph.inputs)
    # Inputs of *args have no name in the signature; they are matched by position.
    return example, known if all(argument_of(name, parameters) for name in known) else (), axes


def _argument(port: str, parameters: Mapping[str, bool]) -> str:
    """Return the argument of an input: the exporter renames Python's own words, input -> input_1."""
    own = python_word(port)
    return own if port not in parameters and own in parameters else port


def _symbolic(port: Port) -> tuple[int, ...]:
    return tuple(axis for axis, size in enumerate(port.shape) if isinstance(size, str))


def _untied(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a state dict, a tied one once."""
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor.detach()
