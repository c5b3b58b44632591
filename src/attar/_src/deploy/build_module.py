"""Where a module comes from: a factory with keyword arguments, and a file of trained weights."""

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

#: What torch.export calls a tensor that code of the module makes, under the name of the module it is in.
_LIFTED = re.compile(r"(.+\.)?lifted_tensor_\d+")
#: What the exporter to ONNX calls a value; it is that of an operator where it does not number them itself.
_COMPUTED = re.compile(r"(?:val|(?P<operator>\w+?))(?:_\d+)?")


def build_module(factory: Any, arguments: Mapping[str, Any], weights: Path | None) -> nn.Module:
    """Make a module and give it its trained weights, where there are any.

    Args:
        factory: a class or function that returns an ``nn.Module``, or a module itself.
        arguments: keyword arguments of the factory.
        weights: ``.safetensors``, a ``.attar`` file, or a state dict saved by ``torch.save`` (opened weights-only:
            nothing in it is run); None leaves the module as the factory makes it.

    Raises:
        SpecError: the factory does not take these arguments or makes no module, or the weights are not there.
        ModelError: the factory fails, or the weights do not fit the module, the names that do not are listed; a
            ``.attar`` file has its batch-norms folded or merged.
    """
    if isinstance(factory, nn.Module):
        module = factory
    elif not callable(factory):
        raise SpecError(f"{factory!r} is no factory; a class or function that returns a torch.nn.Module was expected")
    else:
        try:
            module = factory(**arguments)
        except TypeError as error:
            raise SpecError(f"the factory was called with {dict(arguments)}: {error}") from error
        except Exception as error:
            # The factory is the user's code: whatever it raises means that there is no module.
            name = getattr(factory, "__qualname__", repr(factory))
            raise ModelError(f"the factory {name} was called with {dict(arguments)} and raised {error!r}") from error
    if not isinstance(module, nn.Module):
        raise SpecError(f"the factory made a {type(module).__name__}; a torch.nn.Module was expected")
    if weights is None:
        return module
    artifact = _opened(weights) if weights.suffix == ".attar" else None
    state = read_weights(weights) if artifact is None else _stored(artifact)
    known = module.state_dict()
    if artifact is not None:
        kept = [name for name in state if name in known or not _is_made(name, state[name], module, artifact.manifest)]
        state = {name: state[name] for name in kept}
        _whole(weights, artifact.manifest, [name for name in known if name not in state], state)
    # What a training wrapper puts before every name.
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


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return a state dict from ``.safetensors`` or from one of ``torch.save``, weights-only.

    Raises:
        SpecError: there is no such file, or it holds anything but tensors by name.
    """
    _demand(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged or foreign file ends the readers in nearly any exception; all of them mean this.
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise SpecError(
            f"{path} is neither safetensors nor a state dict of plain tensors ({what}); "
            "save it with safetensors.torch.save_file(module.state_dict(), ...)"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SpecError(f"{path} holds no state dict; save it with torch.save(module.state_dict(), ...)")
    return dict(state)


def _demand(path: Path) -> None:
    if not path.is_file():
        raise SpecError(missing_file(path, "there are no weights at"))


def _opened(path: Path) -> Artifact:
    """Return the ``.attar`` file at ``path``, open.

    Raises:
        SpecError: there is no such file.
        ArtifactError: it is damaged.
    """
    _demand(path)
    return open_artifact(path)


def _is_made(name: str, value: torch.Tensor, module: nn.Module, manifest: Manifest) -> bool:
    """Return whether a tensor of a ``.attar`` file that the state dict has not is one the module makes itself.

    That is a tensor the module has under this name, of this shape (a buffer that is not persistent), or one that its
    code makes and the exporter named. The latter could be anything but for one thing: where the file's parameters are
    as many as the module's, and all of these are in it, what remains is no parameter.
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


def _whole(path: Path, manifest: Manifest, missing: Sequence[str], state: Mapping[str, torch.Tensor]) -> None:
    """Refuse a file whose batch-norms are not what the module has.

    Raises:
        ModelError: they were folded into the layers before them, or merged into two vectors.
    """
    folds = {fold.batch_norm: fold.into for fold in manifest.folds}
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in missing))
    for owner in owners:
        if owner in folds:
            raise ModelError(
                f"{path}: batch-norm {owner!r} was folded into {folds[owner]!r} when the file was made, and cannot be "
                "taken out again; begin with a checkpoint or safetensors of the module, and keep one beside the file"
            )
    for owner in owners:
        if f"{owner}.running_mean" in missing and {f"{owner}.weight", f"{owner}.bias"} <= set(state):
            raise ModelError(
                f"{path}: batch-norm {owner!r} was merged into two vectors when the file was made, its running "
                "statistics are missing; write the file with merge: false on low_precision or compress, or begin with "
                "a checkpoint or safetensors of the module"
            )


def _stored(artifact: Artifact) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.attar`` file as the module has them: what they mean, in float32 where in floats."""
    found = {}
    for name in [*artifact.names, *artifact.manifest.aliases]:
        dense = torch.from_numpy(np.array(artifact.tensor(name).dense()))
        found[name] = dense.float() if dense.is_floating_point() else dense
    return found
