"""Parametrization: what the training graph reads in place of a weight or an activation, and how that is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx, nn

from attar._src.artifact.manifest import Activation
from attar._src.core.tensors import CompressedTensor


@dataclass(frozen=True)
class GridPositions:
    """Positions of a weight on its grid, in codes, before rounding: 0.26 at a scale of 0.1 is at 2.6.

    Attributes:
        at: ``(w - offset) / scale``, the weight's shape, with gradient to the weight and to learned scales and offsets.
        scale: value of one code step, without gradient, broadcastable to ``at``.
        low, high: smallest and largest code.
        spans: whether the scale follows the weights at the ends, so that the others move with these.
    """

    at: torch.Tensor
    scale: torch.Tensor
    low: int
    high: int
    spans: bool = False

    def codes(self) -> torch.Tensor:
        """Return the codes, whole numbers in floating point, without gradient."""
        return self.at.detach().round().clamp_(self.low, self.high)


class Parametrization(nn.Module):
    """A function of one weight or one activation: the training graph reads ``p(w)`` in place of ``w``.

    It may observe its input in training mode but must not change in evaluation mode. Checkpoints hold its buffers and
    parameters.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a value of the same shape."""
        raise NotImplementedError

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return a weight as it is stored; its ``dense()`` equals ``forward(value)`` to the bit."""
        raise NotImplementedError

    def grid_positions(self, value: torch.Tensor) -> GridPositions | None:
        """Return the positions of a weight on an evenly spaced grid, None without such a grid."""
        return None

    def grid(self, value: str) -> Activation | None:
        """Return the grid of the activation named ``value`` in the deployed graph, None without one."""
        return None

    def warnings(self, value: str) -> tuple[str, ...]:
        """Return sentences for the user about the activation named ``value``."""
        return ()

    def emit(self) -> Callable[[fx.Graph, fx.Node], fx.Node] | None:
        """Return a function that adds this operation behind a node of the deployed graph; None for a grid alone."""
        return None
