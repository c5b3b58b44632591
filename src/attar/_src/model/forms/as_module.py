"""``as_module``: a model as people hold it -> a float32 ``nn.Module`` on the CPU that can be captured."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from attar._src.core.errors import ModelError, short_message
from attar._src.model.forms.exported import from_export
from attar._src.model.forms.pretrained import from_folder
from attar._src.model.forms.refused import refuse
from attar._src.model.forms.wrappers import unwrap


def as_module(model: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a model as a module that can be captured, and a sentence for each thing that was changed.

    | form                                                        | becomes                                        |
    |-------------------------------------------------------------|------------------------------------------------|
    | a float32 module on the CPU                                 | itself                                         |
    | ``DataParallel``, ``DistributedDataParallel``, ``torch.compile``, ``AveragedModel`` | the module inside      |
    | ``torch.export.ExportedProgram``, its ``module()``, ``.pt2`` | a graph module                                |
    | ``hf:FOLDER``, as ``save_pretrained`` of ``transformers`` writes it | the model in it                        |
    | float16, bfloat16, float64; on another device; in inference mode | a copy in float32 on the CPU              |

    The copy shares every tensor that needs no change, and the model itself is not changed.

    Raises:
        ModelError: it is in none of these forms (a ScriptModule, a state dict, a path, a function, a quantized module);
            the message has the way out.
    """
    module = inner_module(model)
    refuse(module)
    changed = {id(tensor): tensor for tensor in _tensors(module) if _is_foreign(tensor)}
    if not changed:
        return module, ()
    try:
        with torch.no_grad():
            made = copy.deepcopy(module, {id(each): _own(each) for each in _tensors(module)})
    except Exception as error:
        # The module's own __deepcopy__, or any object it holds, may raise.
        raise ModelError(
            f"{type(module).__name__} has {_described(changed.values())} and cannot be copied to float32 on the CPU "
            f"({short_message(error)}); call module.float().cpu() and give it then"
        ) from error
    told = [tensor for tensor in changed.values() if tensor.dtype != torch.float32 or tensor.device.type != "cpu"]
    name = type(module).__name__
    return made, (f"{name} has {_described(told)}; it is computed in float32 on the CPU",) if told else ()


def inner_module(model: Any) -> Any:
    """Return the module in wrappers, programs of ``torch.export`` and ``hf:FOLDER``; anything else as it is."""
    return unwrap(from_export(from_folder(unwrap(model))))


def is_uninitialized(module: nn.Module) -> bool:
    """Return whether a lazy module in it still waits for its first batch."""
    return any(is_lazy(each) for each in itertools.chain(module.parameters(), module.buffers()))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, buffers and the tensors that are plain attributes, each once."""
    seen = set[int]()
    for child in module.modules():
        for tensor in (*child._parameters.values(), *child._buffers.values(), *vars(child).values()):
            if isinstance(tensor, Tensor) and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def _is_foreign(tensor: Tensor) -> bool:
    if is_lazy(tensor):
        return False
    other = tensor.is_floating_point() and tensor.dtype != torch.float32
    return other or tensor.device.type != "cpu" or tensor.is_inference()


def _own(tensor: Tensor) -> Tensor:
    """Return the tensor itself, or a float32 copy on the CPU of the same kind."""
    if not _is_foreign(tensor):
        return tensor
    kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
    made = tensor.detach().to(device="cpu", dtype=kind, copy=True)
    return nn.Parameter(made, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _described(tensors: Any) -> str:
    """Return what is foreign about tensors: ``8 tensors of float16``, ``2 tensors in inference mode``."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        words = [f"of {str(tensor.dtype).removeprefix('torch.')}"] * (tensor.dtype not in (torch.float32,))
        words += [f"on {tensor.device}"] * (tensor.device.type != "cpu")
        words += ["in inference mode"] * tensor.is_inference()
        counts[" ".join(words)] = counts.get(" ".join(words), 0) + 1
    return ", ".join(f"{count} tensor{'s' * (count != 1)} {words}" for words, count in counts.items())
