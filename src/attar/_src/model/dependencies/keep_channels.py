"""A hook that keeps some channels of what a submodule returns, whose code fills in a fixed number of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

#: The buffer with the places of the channels that are kept, int64.
KEPT = "kept_channels"


class _KeepChannels:
    """A forward hook; the places are a buffer of the submodule, so that they go where the submodule goes."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def __call__(self, module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        return output.index_select(self.axis, module.get_buffer(KEPT))


def keep_channels(module: nn.Module, axis: int, places: torch.Tensor) -> None:
    """Let a submodule return the channels at these places along an axis, of those that its code makes."""
    if KEPT not in module._buffers:
        module.register_forward_hook(_KeepChannels(axis))
    module.register_buffer(KEPT, places, persistent=False)


def reads_kept(name: str) -> bool:
    """Whether a tensor of a captured program is such a buffer."""
    return name.rpartition(".")[2] == KEPT
