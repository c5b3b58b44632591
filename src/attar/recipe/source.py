"""Where a module comes from: a factory with keyword arguments, and a file of trained weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from attar.artifact.reader import open_artifact
from attar.core.errors import ModelError, SpecError, UnknownName


def build(factory: Any, arguments: Mapping[str, Any], weights: Path | None) -> nn.Module:
    """Make a module and give it its trained weights, where there are any.

    Args:
        factory: a class or function that returns an ``nn.Module``, or a module itself.
        arguments: keyword arguments of the factory.
        weights: ``.safetensors``, a ``.attar`` file, or a state dict saved by ``torch.save`` (opened weights-only:
            nothing in it is run); None leaves the module as the factory makes it.

    Raises:
        SpecError: the factory does not take these arguments or makes no module, or the weights are not there.
        ModelError: the factory fails, or the weights do not fit the module; the names that do not are listed.
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
    state = read_weights(weights)
    known = module.state_dict()
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
    """Return a state dict from ``.safetensors``, from a ``.attar`` file or from one of ``torch.save``, weights-only.

    Raises:
        SpecError: there is no such file, or it holds anything but tensors by name.
        ArtifactError: the ``.attar`` file is damaged.
    """
    if not path.is_file():
        raise SpecError(f"there are no weights at {path}")
    if path.suffix == ".attar":
        return _stored(path)
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


def _stored(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.attar`` file as the module has them: what they mean, in float32 where in floats."""
    artifact = open_artifact(path)
    found = {}
    for name in [*artifact.names, *artifact.manifest.aliases]:
        dense = torch.from_numpy(np.array(artifact.tensor(name).dense()))
        found[name] = dense.float() if dense.is_floating_point() else dense
    return found
