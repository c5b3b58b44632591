"""Building a module from a factory, its keyword arguments and a file of trained weights."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from attar._src.artifact.manifest import Manifest
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.core.errors import ModelError, SpecError, UnknownName, missing_file

#: Name that torch.export gives a tensor made by a module's code, under the name of the module.
_LIFTED = re.compile(r"(.+\.)?lifted_tensor_\d+")
#: Name that the ONNX exporter gives a value: ``val_3``, or that of its operator, ``add_1``.
_COMPUTED = re.compile(r"(?:val|(?P<operator>\w+?))(?:_\d+)?")


def build_module(factory: Any, arguments: Mapping[str, Any], weights: Path | None) -> nn.Module:
    """Make a module and load its trained weights, if any.

    Args:
        factory: a class or function that returns an ``nn.Module``, or a module itself.
        arguments: keyword arguments of the factory.
        weights: ``.safetensors``, a ``.attar`` file, or a state dict saved by ``torch.save`` (loaded weights-only,
            which runs no code); None keeps the factory's weights.

    Raises:
        SpecError: the factory refuses the arguments or returns no module, or the weights' file does not exist.
        ModelError: the factory fails; the weights do not fit the module (the message has the names); batch-norms of a
            ``.attar`` file are folded or merged.
    """
    module = _call_factory(factory, arguments)
    if weights is None:
        return module
    artifact = _open(weights) if weights.suffix == ".attar" else None
    state = read_weights(weights) if artifact is None else _decoded_state(artifact)
    known = module.state_dict()
    if artifact is not None:
        kept = [name for name in state if name in known or not _is_made(name, state[name], module, artifact.manifest)]
        state = {name: state[name] for name in kept}
        _check_batch_norms(weights, artifact.manifest, [name for name in known if name not in state], state)
    # Training wrappers prefix every name.
    for prefix in ("module.", "_orig_mod.", "model."):
        if state and all(name.startswith(prefix) for name in state) and not any(n.startswith(prefix) for n in known):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    faults = [f"{name} is missing" for name in known if name not in state and not name.endswith("num_batches_tracked")]
    faults += [str(UnknownName("tensor", name, known)) for name in state if name not in known]
    faults += [
        f"{name} is {tuple(value.shape)} in the file and {tuple(known[name].shape)} in the module"
        for name, value in state.items()
        if name in known and value.shape != known[name].shape
    ]
    if faults:
        more = f" (and {len(faults) - 4} more)" if len(faults) > 4 else ""
        raise ModelError(f"{weights} does not fit {type(module).__name__}: {'; '.join(faults[:4])}{more}")
    module.load_state_dict(state, strict=False)
    return module


def _call_factory(factory: Any, arguments: Mapping[str, Any]) -> nn.Module:
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise SpecError(f"{factory!r} is no factory; give a class or function that returns a torch.nn.Module")
    try:
        module = factory(**arguments)
    except TypeError as error:
        raise SpecError(f"the factory was called with {dict(arguments)}: {error}") from error
    except Exception as error:
        # The factory is the user's code and may raise anything.
        name = getattr(factory, "__qualname__", repr(factory))
        raise ModelError(f"the factory {name} was called with {dict(arguments)} and raised {error!r}") from error
    if not isinstance(module, nn.Module):
        raise SpecError(f"the factory returned a {type(module).__name__}; it should return a torch.nn.Module")
    return module


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a ``.safetensors`` file or a file of ``torch.save``, loaded weights-only.

    Raises:
        SpecError: the file does not exist, or it is no state dict.
    """
    _check_exists(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The readers raise nearly any exception on a damaged or foreign file.
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise SpecError(
            f"{path} is neither safetensors nor a state dict of plain tensors ({what}); "
            "save it with safetensors.torch.save_file(module.state_dict(), ...)"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SpecError(f"{path} has no state dict; save it with torch.save(module.state_dict(), ...)")
    return dict(state)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise SpecError(missing_file(path, "there are no weights at"))


def _open(path: Path) -> Artifact:
    _check_exists(path)
    return open_artifact(path)


def _is_made(name: str, value: torch.Tensor, module: nn.Module, manifest: Manifest) -> bool:
    """Return whether the module itself makes a tensor of a ``.attar`` file that its state dict lacks.

    Such a tensor is a non-persistent buffer of this name and shape, or one made by the module's code and named by the
    exporter. The latter is assumed only if file and module have the same number of parameters, as the tensor could be
    one otherwise.
    """
    try:
        own = attrgetter(name)(module)
    except AttributeError:
        own = None
    if isinstance(own, torch.Tensor):
        return own.shape == value.shape
    if manifest.parameters != sum(parameter.numel() for parameter in module.parameters()):
        return False
    computed = _COMPUTED.fullmatch(name)
    by = computed["operator"] if computed else None
    return bool(_LIFTED.fullmatch(name) or (computed and (by is None or hasattr(torch.ops.aten, by))))


def _check_batch_norms(
    path: Path, manifest: Manifest, missing: Sequence[str], state: Mapping[str, torch.Tensor]
) -> None:
    """Refuse a file whose batch-norms were folded into the layers before them, or merged into two vectors."""
    folds = {fold.batch_norm: fold.into for fold in manifest.folds}
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in missing))
    for owner in owners:
        if owner in folds:
            raise ModelError(
                f"{path}: batch-norm {owner!r} was folded into {folds[owner]!r} when the file was made, which cannot "
                "be undone; start from a checkpoint or safetensors of the module, and keep one beside the file"
            )
    for owner in owners:
        if f"{owner}.running_mean" in missing and {f"{owner}.weight", f"{owner}.bias"} <= set(state):
            raise ModelError(
                f"{path}: batch-norm {owner!r} was merged into two vectors when the file was made, so its running "
                "statistics are missing; write the file with merge: false on low_precision or compress, or start from "
                "a checkpoint or safetensors of the module"
            )


def _decoded_state(artifact: Artifact) -> dict[str, torch.Tensor]:
    """Return the decoded tensors of a ``.attar`` file, floats as float32."""
    state = {}
    for name in [*artifact.names, *artifact.manifest.aliases]:
        dense = torch.from_numpy(np.array(artifact.tensor(name).dense()))
        state[name] = dense.float() if dense.is_floating_point() else dense
    return state
