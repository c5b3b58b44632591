"""Checkpoints of a stage: tensors as safetensors, everything else as JSON in the same file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from attar._src.artifact.writer import write_atomically
from attar._src.core.digest import digest
from attar._src.core.errors import AttarError

_FORM = "attar-checkpoint-2"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a stage after ``epoch`` epochs, of all if it is ``done``; ``facts`` are JSON values."""

    epoch: int
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]
    done: bool = False


@dataclass(frozen=True)
class CheckpointStore:
    """A folder with the latest checkpoint of one stage in one file, such as ``epoch-000012.safetensors``.

    The file's metadata holds the facts as JSON and a checksum of everything, which safetensors lacks.
    """

    folder: Path

    def latest(self) -> Checkpoint | None:
        """Return the latest checkpoint, None if there is none.

        Raises:
            AttarError: the checkpoint is damaged.
        """
        path = max(self._paths(), default=None)
        if path is None:
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            checksum, text = metadata[_FORM][:8], metadata[_FORM][8:]
            if checksum != _checksum(tensors, text):
                raise ValueError("its checksum does not match")
            return Checkpoint(tensors=tensors, **json.loads(text))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise AttarError(
                f"checkpoint {path} is damaged ({type(error).__name__}: {error}); remove it to restart this stage"
            ) from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint atomically, then remove the previous one.

        Raises:
            AttarError: the disk is full or the folder is not writable; the previous checkpoint is kept.
        """
        path = self.folder / f"epoch-{checkpoint.epoch:06d}.safetensors"
        # Copy: safetensors refuses tensors that share memory or are not contiguous.
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in checkpoint.tensors.items()
        }
        said = {"epoch": checkpoint.epoch, "done": checkpoint.done, "facts": dict(checkpoint.facts)}
        text = json.dumps(said, separators=(",", ":"))
        # One entry, because safetensors writes several in an order that differs between processes.
        metadata = {_FORM: _checksum(tensors, text) + text}
        before = self._paths()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save(tensors, metadata))
            _sync_folder(self.folder)
            for old in [*before, *self.folder.glob(".epoch-*.part")]:
                if old != path:
                    old.unlink(missing_ok=True)
        except OSError as error:
            intact = f"the previous checkpoint is intact: run again to resume from {before[-1].name}" if before else ""
            raise AttarError(
                f"checkpoint {path} cannot be written ({error}); free disk space or allow writing; "
                f"{intact or 'there is no previous checkpoint: the stage will start again'}"
            ) from error

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.safetensors"))


def _checksum(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    """Return eight hex digits of a digest of the text and all tensors, in order of name."""
    return digest([text, *chain.from_iterable(sorted(tensors.items()))])[:8]


def _sync_folder(folder: Path) -> None:
    """Make the new file's entry durable before the old file is removed."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flatten_state(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return ``value`` as JSON with every tensor replaced by a name, and add the tensors to ``tensors``.

    Raises:
        AttarError: ``value`` contains more than None, booleans, numbers, strings, tensors, dicts, lists and tuples.

    Example:
        >>> flatten_state({"step": 3, "exp_avg": torch.zeros(2)}, "optimizer", {})
        {'dict': [['step', 3], ['exp_avg', {'tensor': 'optimizer.exp_avg'}]]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, flatten_state(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [flatten_state(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]}
    raise AttarError(
        f"{name} is a {type(value).__name__} and cannot be stored in a checkpoint; use numbers, strings and tensors in "
        "dicts, lists and tuples"
    )


def unflatten_state(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Invert :func:`flatten_state`."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: unflatten_state(item, tensors) for key, item in inner}
    items = [unflatten_state(item, tensors) for item in inner]
    return items if kind == "list" else tuple(items)
