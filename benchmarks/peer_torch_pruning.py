"""Torch-Pruning (Fang et al. 2023, "DepGraph: towards any structural pruning"): channels with what is coupled."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch_pruning
from torch import nn

#: Steps in which it comes near a target.
STEPS = 200


def pruned(
    net: nn.Module, x: torch.Tensor, score: str, fixed: list[nn.Module], reached: Callable[[nn.Module], bool]
) -> nn.Module:
    """Remove channels from a network, in place, the lowest scores of all, until a target is reached.

    Args:
        net: with gradients of a loss if the score is ``taylor``.
        x: an example.
        score: ``l2`` or ``taylor``.
        fixed: layers whose output channels stay.
        reached: whether the network has the target.
    """
    kinds = {
        "l2": lambda: torch_pruning.importance.MagnitudeImportance(p=2),
        "taylor": torch_pruning.importance.TaylorImportance,
    }
    pruner = torch_pruning.pruner.BasePruner(
        net,
        x,
        importance=kinds[score](),
        global_pruning=True,
        pruning_ratio=0.9,
        max_pruning_ratio=0.9,
        iterative_steps=STEPS,
        ignored_layers=fixed,
    )
    for _ in range(STEPS):
        if reached(net):
            break
        pruner.step()
    return net
