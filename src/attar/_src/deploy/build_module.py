"""Building a module from a factory, its keyword arguments and a file of trained weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from attar._src.artifact.manifest import Manifest
from attar._src.artifact.reader import open_artifact
from attar._src.core.errors import AttarError, ModelError, SpecError, missing_file, place_of
from attar._src.core.registry import load_object
from attar._src.data.huggingface import HF
from attar._src.deploy.checkpoint import misfit, read_state, state_faults
from attar._src.deploy.pruning.removals import follow_removals, follow_safetensors, graph_inputs, removals_of
from attar._src.deploy.pruning.unchanged import unchanged_on_error
from attar._src.model.forms.as_module import inner_module
from attar._src.model.forms.pretrained import load_pretrained
from attar._src.train.inputs import as_input

#: Name that torch.export gives a tensor made by a module's code, under the name of the module.
_LIFTED = re.compile(r"(.+\.)?lifted_tensor_\d+")
#: Name that the ONNX exporter gives a value: ``val_3``, or that of its operator, ``add_1``.
_COMPUTED = re.compile(r"(?:val|(?P<operator>\w+?))(?:_\d+)?")


def find_model(reference: str, located: Callable[[str], Path] = Path) -> Any:
    """Return what :func:`build_module` takes for a word of a user.

    | word                                        | is                                                          |
    |---------------------------------------------|-------------------------------------------------------------|
    | ``hf:FOLDER``                               | a function that loads the model of ``transformers`` in it   |
    | ``PATH.pt2``                                | a program of ``torch.export``                               |
    | ``file.py:name``, ``package.module:name``   | the object                                                  |

    ``located`` makes a path of a text.
    """
    if reference.startswith(HF):
        return partial(load_pretrained, located(reference.removeprefix(HF)))
    return located(reference) if reference.endswith(".pt2") else load_object(reference)


def build_module(factory: Any, arguments: Mapping[str, Any], weights: Path | None) -> nn.Module:
    """Make a module, without the wrappers around it, and load its trained weights, if any.

    Args:
        factory: a class or function that returns an ``nn.Module``; or a module, a program of ``torch.export`` or the
            path of a ``.pt2`` file.
        arguments: keyword arguments of the factory.
        weights: a ``.attar`` file, or a file that :func:`read_state` opens.

    Raises:
        SpecError: the factory refuses the arguments or returns no module, or the weights' file does not exist.
        ModelError: the factory fails; the weights do not fit the module (the message has the names); batch-norms of a
            ``.attar`` file are folded or merged.
    """
    module = _call_factory(factory, arguments)
    if weights is None:
        return module
    packed = weights.suffix == ".attar"
    if packed and not weights.is_file():
        raise SpecError(missing_file(weights, "there are no weights at"))
    # A factory may return a module that its caller holds.
    with unchanged_on_error(module):
        if weights.suffix == ".safetensors" and weights.is_file():
            follow_safetensors(weights, module)
        state = _decoded_state(weights, module) if packed else read_state(weights, module)
    module.load_state_dict(state, strict=False)
    return module


def _call_factory(factory: Any, arguments: Mapping[str, Any]) -> nn.Module:
    module = inner_module(factory)
    if isinstance(module, nn.Module):
        return module
    if isinstance(factory, Mapping) and "object" in factory:
        raise SpecError(
            f"the recipe was written in Python with an object of {factory['object']} here, which a file cannot hold; "
            "run it in Python with that object in this place"
        )
    if not callable(factory):
        raise SpecError(f"{factory!r} is no factory; give a class or function that returns a torch.nn.Module")
    try:
        made = factory(**arguments)
    except TypeError as error:
        raise SpecError(f"the factory was called with {dict(arguments)}: {error}{_at(error)}") from error
    except AttarError:
        raise
    except (Exception, SystemExit) as error:
        # The factory is the user's code and may raise anything.
        name = getattr(factory, "__qualname__", repr(factory))
        raise ModelError(
            f"the factory {name} was called with {dict(arguments)} and raised {error!r}{_at(error)}"
        ) from error
    module = inner_module(made)
    if not isinstance(module, nn.Module):
        raise SpecError(f"the factory returned a {type(made).__name__}; it should return a torch.nn.Module")
    return module


def _at(error: BaseException) -> str:
    place = place_of(error)
    return f" ({place})" if place else ""


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
    for name in missing:
        owner = name.rpartition(".")[0]
        if owner in folds:
            raise ModelError(
                f"{path}: batch-norm {owner!r} was folded into {folds[owner]!r} when the file was made, which cannot "
                "be undone; start from a checkpoint or safetensors of the module, and keep one beside the file"
            )
        if name == f"{owner}.running_mean" and {f"{owner}.weight", f"{owner}.bias"} <= state.keys():
            raise ModelError(
                f"{path}: batch-norm {owner!r} was merged into two vectors when the file was made, so its running "
                "statistics are missing; write the file with merge: false on low_precision or compress, or start from "
                "a checkpoint or safetensors of the module"
            )


def _decoded_state(path: Path, module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the decoded tensors of a ``.attar`` file, floats as float32, without those the module itself makes."""
    artifact = open_artifact(path)
    if removals := removals_of(artifact.manifest):
        follow_removals(module, removals, *graph_inputs(artifact.manifest.graphs[0], module))
    known, state = module.state_dict(), {}
    for name in [*artifact.names, *artifact.manifest.aliases]:
        value = as_input(torch.from_numpy(np.array(artifact.tensor(name).dense())))
        if name in known or not _is_made(name, value, module, artifact.manifest):
            state[name] = value
    _check_batch_norms(path, artifact.manifest, [name for name in known if name not in state], state)
    faults = state_faults(state, module)
    if faults:
        raise misfit(str(path), faults, module)
    return state
