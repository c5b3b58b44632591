"""Models that Attar does not take, each with the reason and the way out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from attar._src.core.errors import ModelError
from attar._src.model.forms.wrappers import class_names

_BUILD = "build the module with its class and load them: net = Net(); net.load_state_dict(weights)"
_TRUSTED = "open a file you trust yourself, with torch.load, and give the module"
#: Ending of a file -> what it is, and what to write instead.
_FILES = {
    ".attar": "a compressed model; attar.Session runs it, and a recipe takes it as source: {file: ...}",
    ".onnx": "an ONNX graph, which PyTorch cannot train or trace; give the module it was exported from",
    ".safetensors": f"the weights alone, without code; {_BUILD}",
    ".npz": f"the weights alone, without code; {_BUILD}",
    ".py": "a file of code; import the class from it and give an object of it",
}
#: Beginning of the module of a class -> what its objects are.
_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse", "bitsandbytes.")


def refuse(model: Any) -> None:
    """Refuse a model in a form that cannot be traced; a module of floating-point tensors passes.

    Raises:
        ModelError: it is no module, a module without Python code, one that is quantized or sharded already.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"{_what(model)} is no torch.nn.Module: {_way_out(model)}")
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            f"{getattr(model, 'original_name', name)} is a ScriptModule (torch.jit), whose Python code is gone, so it "
            "cannot be traced: build the module it was made from, load its weights with "
            "net.load_state_dict(scripted.state_dict()), and give net"
        )
    for path, child in model.named_modules():
        if any(full.startswith(_QUANTIZED) for full in class_names(child)):
            raise ModelError(
                f"{path or name} is a {type(child).__name__} and quantized already, by {type(child).__module__}: give "
                "the floating-point module it was made from; Attar quantizes it (bits=8, activations=8)"
            )
        if any("fully_sharded_data_parallel" in full for full in class_names(child)):
            raise ModelError(
                f"{path or name} is sharded (FullyShardedDataParallel): gather its weights with "
                "torch.distributed.checkpoint.state_dict.get_model_state_dict(..., options=StateDictOptions("
                "full_state_dict=True)), load them into a module of its class, and give that"
            )
    for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
        _refuse_tensor(path, tensor)


def _refuse_tensor(path: str, tensor: Any) -> None:
    of_library = bool(is_traceable_wrapper_subclass(tensor)) | any(
        n.startswith(_QUANTIZED) for n in class_names(tensor)
    )
    if of_library or tensor.is_quantized:
        kind = f"{type(tensor).__module__}.{type(tensor).__qualname__}" if of_library else str(tensor.dtype)
        raise ModelError(
            f"{path} is a {kind}, not a plain tensor: give the floating-point module, before it was quantized (by "
            "torchao, for example) or distributed; Attar quantizes it (bits=8, activations=8)"
        )
    if tensor.dtype.is_complex:
        raise ModelError(
            f"{path} is {tensor.dtype}; Attar compresses real weights: keep real and imaginary parts apart"
        )
    if tensor.is_meta:
        raise ModelError(f"{path} is on the meta device and has no values: load the weights before (to_empty is not)")


def _what(model: Any) -> str:
    if isinstance(model, str | Path):
        return f"the path {str(model)!r}"
    if isinstance(model, Mapping):
        return f"a mapping of {len(model)} entries ({', '.join(map(str, [*model][:3]))}, ...)"
    if isinstance(model, type):
        return f"the class {model.__name__}"
    return f"the function {model.__name__}" if inspect.isroutine(model) else f"a {type(model).__name__}"


def _way_out(model: Any) -> str:
    if isinstance(model, str | Path):
        path = Path(model)
        pickled = f"the file of a pickled module needs its code to open; {_BUILD}, or {_TRUSTED}"
        return _FILES.get(path.suffix, pickled)
    if isinstance(model, Mapping):
        return f"a state dict holds the weights alone, without code; {_BUILD}"
    if isinstance(model, type):
        return f"give an object of it: {model.__name__}(...)" if issubclass(model, nn.Module) else "give a module"
    if isinstance(model, Callable):  # type: ignore[arg-type]
        return (
            "its weights have no names; write a class that holds them, class Net(torch.nn.Module), with the function "
            "as its forward, and give Net()"
        )
    return "give an object of a class derived from it"
