"""NaN and infinities in the tensors of a module: refused before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.core.tensors import Dense
from attar._src.model.traced import TracedModel
from attar._src.work.compressed_model import CompressedModel


def check_module_finite(module: nn.Module, traced: TracedModel) -> None:
    """Refuse a module whose graph reads NaN, or infinities in a parameter.

    A buffer or constant may hold infinities: causal masks do.

    Raises:
        ModelError: it names the module's own tensors; folded batch-norms have spread them over others.
    """
    if _faults(dict(traced.graph.named_parameters()), dict(traced.graph.named_buffers())):
        own = dict(module.named_parameters()), dict(module.named_buffers())
        _refuse(_faults(*own) or _faults(dict(traced.graph.named_parameters()), {}))


def check_model_finite(model: CompressedModel) -> None:
    """Refuse to store NaN, or infinities that are not in a buffer as the module has it.

    Raises:
        ModelError: it names the tensors; a training may have diverged.
    """
    parameters: dict[str, torch.Tensor] = {}
    buffers: dict[str, torch.Tensor] = {}
    stored = model.stored()
    for graph in model.graphs.values():
        untouched = {name for name, _ in graph.traced.graph.named_buffers()} - model.tensors.keys()
        for name in graph.traced.names:
            if name in stored and isinstance(tensor := stored[name], Dense):
                # Arrays of a file, and those that broadcast, cannot be written to, of which PyTorch warns.
                array = np.require(tensor.dense(), requirements=["W"])
                (buffers if name in untouched else parameters)[name] = torch.from_numpy(array)
    _refuse(_faults(parameters, buffers))


def _faults(parameters: Mapping[str, torch.Tensor], buffers: Mapping[str, torch.Tensor]) -> list[str]:
    faults = []
    for name, tensor in {**parameters, **buffers}.items():
        # NaN and infinities make the sum NaN or infinite.
        if not tensor.is_floating_point() or torch.isfinite(tensor.sum()):
            continue
        nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum()) if name in parameters else 0
        counted = [f"{count:,} {what}" for count, what in ((nan, "NaN"), (infinite, "infinite")) if count]
        if counted:
            faults.append(f"{name} ({' and '.join(counted)} of {tensor.numel():,} elements)")
    return faults


def _refuse(faults: list[str]) -> None:
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ModelError(
            f"not finite: {', '.join(faults[:4])}{more}; repair these tensors, or go back to weights from before the "
            "training diverged"
        )
