"""Trained weights in a file, whatever keeps them: a plain state dict, or the checkpoint of a training framework."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from attar._src.core.errors import ModelError, SpecError, UnknownName, missing_file

#: Entries of a checkpoint that hold running means of the weights; used if nothing else fits.
_MEANS = ("ema", "model_ema", "state_dict_ema", "params_ema", "ema_state_dict", "ema_model")
_SCALAR: Any = np.float64(0).__reduce__()[0]
_NONE = torch.zeros(())
_DEPTH = 3  # entries in entries in entries: {"ema": {"module": {...}}}
#: What checkpoints hold beside tensors and is no code: arguments of a script, numbers of numpy.
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
]


def read_state(path: Path, module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict for a module in a file of weights.

    | file                                                                    | state dict                           |
    |-------------------------------------------------------------------------|--------------------------------------|
    | ``.safetensors``, ``.npz``, ``torch.save(module.state_dict())``         | the file                             |
    | ``{"state_dict": ...}``, ``{"model": ...}``, ``{"ema": ...}``, Lightning's | the entry whose names fit         |
    | names with ``module.``, ``_orig_mod.``, ``model.``, ``net.`` before them | those, without                      |

    Files of ``torch.save`` are opened weights-only, which runs no code. ``x.pt:ema`` chooses an entry by name.

    Raises:
        SpecError: the file does not exist, is none of these, or has two entries that fit.
        ModelError: the weights do not fit; the message has the names.
    """
    path, _, entry = _parted(path)
    if not path.is_file():
        raise SpecError(missing_file(path, "there are no weights at"))
    known = module.state_dict(keep_vars=True)
    held = dict(_states(_open(path)))
    if not held:
        raise SpecError(f"{path} has no state dict; save it with torch.save(module.state_dict(), ...)")
    if entry:
        if entry not in held:
            raise SpecError(f"{path}: {UnknownName('entry', entry, held)}")
        held = {entry: held[entry]}
    states = {name: _named_as(state, known) for name, state in held.items()}
    fitting = {name: state for name, state in states.items() if not state_faults(state, module)}
    usual = {
        name: state for name, state in fitting.items() if name.rpartition(".")[0] not in _MEANS and name not in _MEANS
    }
    chosen = usual or fitting
    if len(chosen) > 1 and not _same(*chosen.values()):
        raise SpecError(
            f"{path} has {len(chosen)} entries that fit {type(module).__name__}: {', '.join(chosen)}; choose one: "
            f"{path.name}:{next(iter(chosen))}"
        )
    if not chosen:
        name = min(states, key=lambda each: len(state_faults(states[each], module)))
        raise misfit(
            f"{path} ({name})" if name else str(path),
            state_faults(states[name], module),
            module,
            pruned=looks_pruned(states[name], module),
        )
    state = next(iter(chosen.values()))
    return {name: value for name, value in state.items() if name in known}


def misfit(what: str, faults: Sequence[str], module: nn.Module, *, pruned: bool = False) -> ModelError:
    """Return the error for weights that do not fit, with the first four faults, and a hint if they look pruned."""
    more = f" (and {len(faults) - 4} more)" if len(faults) > 4 else ""
    hint = (
        ". If channels were removed from it, write the weights with save_weights of attar.prune, or attar prune -o "
        "x.safetensors, which tell what was removed: a state dict does not"
        if pruned
        else ""
    )
    return ModelError(f"{what} does not fit {type(module).__name__}: {'; '.join(faults[:4])}{more}{hint}")


def looks_pruned(state: Mapping[str, Tensor], module: nn.Module) -> bool:
    """Whether a state dict has the names of a module, some of its tensors shorter and none longer along an axis."""
    known = {name: value for name, value in module.state_dict(keep_vars=True).items() if not is_lazy(value)}
    if not known.keys() >= state.keys() or any(state[name].dim() != known[name].dim() for name in state):
        return False
    pairs = [pair for name in state for pair in zip(state[name].shape, known[name].shape, strict=True)]
    return any(own < wanted for own, wanted in pairs) and all(own <= wanted for own, wanted in pairs)


def state_faults(state: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    """Return how a state dict differs from a module's, one message for each name.

    A name may be missing if the module ties it to one that is there, as safetensors leaves such copies out, and there
    may be buffers that the module makes itself.
    """
    known = module.state_dict(keep_vars=True)
    there = {_storage(known[name]) for name in state if name in known}
    wanted = {name: value for name, value in known.items() if name in state or _storage(value) not in there}
    own = {name: value for name, value in state.items() if name in known or not _is_made(name, value, module)}
    # A lazy parameter takes the shape of what is loaded.
    shapes = {
        name: tuple((state.get(name, _NONE) if is_lazy(value) else value).shape) for name, value in wanted.items()
    }
    return shape_faults({name: tuple(value.shape) for name, value in own.items()}, shapes)


def shape_faults(file: Mapping[str, tuple[int, ...]], module: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return how the shapes of a file's tensors differ from a module's, one message for each name."""
    lacking = [name for name in module if name not in file and not name.endswith("num_batches_tracked")]
    other = [name for name in module if file.get(name, module[name]) != module[name]]
    return [
        *(f"{name} is missing" for name in lacking),
        *(str(UnknownName("tensor", name, module)) for name in file if name not in module),
        *(f"{name} is {file[name]} in the file and {module[name]} in the module" for name in other),
    ]


def _parted(path: Path) -> tuple[Path, str, str]:
    """Return the path, ``:`` and the entry of ``x.pt:ema``."""
    before, colon, entry = path.name.rpartition(":")
    return (path, "", "") if path.is_file() or not colon else (path.with_name(before), colon, entry)


def _open(path: Path) -> Any:
    """Return what a file of weights holds, opened without running code."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        with warnings.catch_warnings(), torch.serialization.safe_globals([*_PLAIN, _SCALAR]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The readers raise nearly any exception on a damaged or foreign file.
        raise SpecError(f"{path} {_why(str(error))}") from error


def _why(text: str) -> str:
    if "TorchScript" in text:
        return (
            "is a TorchScript archive; take its weights out: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pt')"
        )
    if "nsupported global" in text or "nsupported class" in text or "nsupported operand" in text:
        named = re.search(r"(?:GLOBAL|class) `?([\w.]+\w)", text)
        return (
            f"holds Python objects{f' ({named[1]})' if named else ''} and not only tensors: a pickled module, or a "
            "checkpoint with other objects; Attar does not open those, as they can run code. If you trust the file, "
            "open it with torch.load yourself and save its weights alone: torch.save(held.state_dict(), 'weights.pt') "
            "of a module, torch.save(held['state_dict'], 'weights.pt') of a checkpoint"
        )
    what = next(iter(text.splitlines()), "")
    return (
        f"is neither safetensors, npz nor a state dict of plain tensors ({what}); save it with "
        "safetensors.torch.save_file(module.state_dict(), ...)"
    )


def _states(held: Any, path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts in a checkpoint by path, such as ``("ema.module", {...})``; the whole has an empty path."""
    if not isinstance(held, Mapping):
        return
    tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    if tensors and len(tensors) == len(held):
        yield path, tensors
        return
    for name, value in held.items() if depth else ():
        yield from _states(value, f"{path}.{name}" if path else str(name), depth - 1)


def _named_as(state: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a state dict without what wrappers put into its names; of several parts of a model, the one that fits.

    ``module.0.weight`` and ``_orig_mod.0.weight`` become ``0.weight``; of ``model.0.weight`` and ``loss.weight``
    (Lightning) the first remains, as ``0.weight``, if all names of the module are there.
    """
    if not any("_orig_mod." in name for name in known):
        state = {name.replace("_orig_mod.", ""): value for name, value in state.items()}
    if state.keys() & known.keys() or not known:
        return dict(state)
    first = max(known, key=len)
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f".{first}")] or [
        f"{word}." for word in dict.fromkeys(name.partition(".")[0] for name in state)
    ]
    parts = [
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for prefix in dict.fromkeys(prefixes)
    ]
    best = max(parts, key=lambda part: len(part.keys() & known.keys()), default={})
    return best if best.keys() & known.keys() else dict(state)


def _storage(value: Any) -> tuple[int, torch.Size]:
    """Return what tied tensors have in common."""
    return (id(value), _NONE.shape) if is_lazy(value) or not value.numel() else (value.data_ptr(), value.shape)


def _is_made(name: str, value: Tensor, module: nn.Module) -> bool:
    """Return whether a name is a buffer of the module that its state dict leaves out."""
    buffers = dict(module.named_buffers())
    return name in buffers and buffers[name].shape == value.shape


def _same(first: Mapping[str, Tensor], *others: Mapping[str, Tensor]) -> bool:
    return all(first.keys() == each.keys() and all(torch.equal(first[n], each[n]) for n in first) for each in others)
