"""Wrappers of PyTorch around a module: parallel, compiled and averaged ones, which compute what it computes."""

from __future__ import annotations

from typing import Any

from torch import nn

#: Class of a wrapper -> its attribute that holds the module. Names, because some of these imports take a second.
WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
    "lightning_fabric.wrappers._FabricModule": "_forward_module",
}


def unwrap(model: Any) -> Any:
    """Return the module inside all wrappers around ``model``: of ``DataParallel(torch.compile(net))``, ``net``."""
    while isinstance(model, nn.Module):
        attribute = next((WRAPPERS[name] for name in class_names(model) if name in WRAPPERS), None)
        if attribute is None:
            return model
        model = getattr(model, attribute)
    return model


def class_names(value: Any) -> list[str]:
    """Return the full names of a value's class and its bases, the class first."""
    return [f"{each.__module__}.{each.__qualname__}" for each in type(value).__mro__]
