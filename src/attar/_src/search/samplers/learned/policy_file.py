"""A policy as a file: its tensors in safetensors, with a description that must fit; nothing in it is ever executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError, SpecError, missing_file

#: Key of the description.
_ABOUT = "attar_policy"


def save_policy(path: Path, state: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write the tensors of a policy and what it is: kind, what it observes, dimensions of an action."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, {_ABOUT: json.dumps(about, sort_keys=True)}))


def load_policy(path: Path, about: dict[str, Any], like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a policy.

    Args:
        path: of the file.
        about: what the policy must be.
        like: tensors of the same names and shapes.

    Raises:
        SpecError: it is a policy of another kind, or there is no such file.
        AttarError: it is no policy, or damaged.
    """
    if not path.is_file():
        raise SpecError(f"policy {missing_file(path)}")
    try:
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {}).get(_ABOUT, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError) as error:
        raise AttarError(f"{path} is no policy: {error}; take a file that a search saved (save:)") from error
    if not isinstance(found, dict):
        raise AttarError(f"{path} is no policy of a search; take a file that a search saved (save:)")
    if differing := [key for key, value in about.items() if found.get(key) != value]:
        said = ", ".join(f"{key} {found.get(key)!r}, here {about[key]!r}" for key in differing)
        raise SpecError(f"{path} has a policy of another kind: {said}; take one of the same sampler and dimensions")
    if {name: each.shape for name, each in tensors.items()} != {name: each.shape for name, each in like.items()}:
        raise AttarError(f"{path} has other tensors than the policy it describes; save it again")
    return tensors
