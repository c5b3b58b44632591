"""What files tell of the channels that were removed from their module, so that a module as it was before can follow.

A ``.attar`` file has it in the entries of its stages, a ``.safetensors`` file in its metadata: masks and numbers, no
code. What they mean follows from the module's own graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError, model_validator
from torch import nn

from attar._src.artifact.graph.guards import elements
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Dims, GraphRecord, Manifest, Port
from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import ArtifactError, SpecError
from attar._src.core.fields import argument_of, python_word
from attar._src.core.scheme import Shape
from attar._src.core.spec import Spec, explain
from attar._src.core.tensors import DTYPES
from attar._src.data.axes import Axes
from attar._src.deploy.pruning.untrained import PruningLoss, note_loss, noted_loss
from attar._src.model.capture import capture
from attar._src.model.dependencies.record import Removal, removal_records, remove_recorded, remove_recorded_layers
from attar._src.model.interface import forward_parameters

_METADATA = "attar_removals"


def removals_of(manifest: Manifest) -> tuple[Removal, ...]:
    """Return the records of removals in order; empty for a file without.

    Raises:
        ArtifactError: a record is damaged.
    """
    stages = manifest.recipe.get("stages", [])
    found = (
        [stage["removed"] for stage in stages if isinstance(stage, dict) and "removed" in stage]
        if isinstance(stages, list)
        else []
    )
    try:
        return tuple(Removal.model_validate(each) for each in found)
    except ValidationError as error:
        raise ArtifactError(f"the file's record of removals is damaged: {explain(error, where='removed')}") from error


def follow_removals(
    module: nn.Module,
    removals: Sequence[Removal],
    example: Sequence[torch.Tensor],
    names: Sequence[str] = (),
    dynamic: Sequence[int | Axes] = (),
    *,
    original: nn.Module | None = None,
) -> None:
    """Remove from a module, in place, what records tell and it does not have yet.

    ``original``: the module that this one is a float32 copy of, from which the same is removed.

    Raises:
        ModelError: the module has no such channels.
    """
    done = [*removal_records(module)]
    for removal in removals:
        if removal in done:
            done.remove(removal)
            continue
        copies = () if original is None else (original,)
        if removal.of_layers:
            remove_recorded_layers(module, removal, copies=copies)
            continue
        captured = capture(module, example, names=names, dynamic=dynamic, train=False)
        remove_recorded(module, captured, removal, copies=copies)


class _Input(Spec):
    """Type and shape of an input to capture a module with."""

    dtype: Literal["float32", "int64", "int32", "int8", "uint8", "bool"]
    shape: Dims


class _Metadata(Spec):
    """What a ``.safetensors`` file tells: removals, the inputs to capture the module with, and their names, if any; and
    what was lost, if the weights are those that pruning left."""

    removals: tuple[Removal, ...]
    inputs: tuple[_Input, ...]
    names: tuple[str, ...]
    loss: PruningLoss | None = None

    @model_validator(mode="after")
    def _name_each(self) -> Self:
        if self.names and len(self.names) != len(self.inputs):
            raise ValueError(f"{len(self.names)} names of {len(self.inputs)} inputs")
        return self


def save_pruned(path: Path, module: nn.Module, example: Sequence[torch.Tensor], names: Sequence[str]) -> None:
    """Write the weights of a pruned module as ``.safetensors``, with the records of what was removed.

    ``attar quantize -w`` and recipes build the module as it was before and remove the same.
    """
    types = [str(each.dtype).removeprefix("torch.") for each in example]
    inputs = [{"dtype": dtype, "shape": [*each.shape]} for dtype, each in zip(types, example, strict=True)]
    about = {"inputs": inputs, "names": [*names], "loss": noted_loss(module)}
    told = _Metadata.model_validate({"removals": removal_records(module), **about})
    tensors = {name: each.contiguous() for name, each in _untied(module)}
    write_atomically(path, safetensors.torch.save(tensors, {_METADATA: json.dumps(told.describe())}))


def follow_safetensors(path: Path, module: nn.Module, limits: Limits | None = None) -> None:
    """Remove from a module, in place, what was removed before a ``.safetensors`` file was written.

    Raises:
        SpecError: the record is damaged.
        ModelError: the module has no such channels.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_METADATA)
    except safetensors.SafetensorError:
        # What reads the weights says what is wrong with the file.
        return
    if text is None:
        return
    try:
        told = _Metadata.model_validate_json(text)
        _demand_inputs([each.shape for each in told.inputs], limits)
    except (ValidationError, ArtifactError) as error:
        why = explain(error, where="") if isinstance(error, ValidationError) else error
        raise SpecError(f"{path}: its record of removals is damaged ({why})") from error
    example = [torch.zeros(each.shape, dtype=getattr(torch, each.dtype)) for each in told.inputs]
    follow_removals(module, told.removals, example, told.names)
    if told.loss is not None:
        note_loss(module, told.loss)


def graph_inputs(
    graph: GraphRecord, module: nn.Module, limits: Limits | None = None
) -> tuple[tuple[torch.Tensor, ...], tuple[str, ...], list[Axes]]:
    """Return zeros for the inputs of a file's graph, the arguments of a module they are, and their axes.

    Raises:
        ArtifactError: the inputs have too many elements.
    """
    _demand_inputs([port.example or () for port in graph.inputs], limits)
    example = tuple(torch.from_numpy(np.zeros(port.example or (), DTYPES[port.dtype])) for port in graph.inputs)
    axes = [Axes(port.batch_axis, _symbolic(port)) for port in graph.inputs]
    parameters = forward_parameters(module)
    known = tuple(_argument(port.name, parameters) for port in graph.inputs)
    # Inputs of *args have no name in the signature; they are matched by position.
    return example, known if all(argument_of(name, parameters) for name in known) else (), axes


def _demand_inputs(shapes: Sequence[Shape], limits: Limits | None) -> None:
    """Refuse inputs of more elements than one value of a graph may have."""
    most = (limits or Limits()).value_elements
    if (count := sum(map(elements, shapes))) > most:
        raise ArtifactError(f"value_elements: its inputs have {count} elements, more than the limit of {most}")


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
