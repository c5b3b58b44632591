"""What a row of ``quantization.py`` asks of a peer, which raises ``Unable`` where its tool has no way to do it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

Batches = list[tuple[Tensor, ...]]


class Unable(Exception):
    """A tool cannot do a row."""


@dataclass(frozen=True)
class Asked:
    """What a row asks of a network.

    Attributes:
        bits: of weights.
        activations: bits of activations, or None for floating point.
        dynamic: whether ranges of activations are found at each run.
        ends: names of the first and the last layer, whose weights and inputs have 8 bits.
    """

    bits: int
    activations: int | None = None
    dynamic: bool = False
    ends: tuple[str, ...] = ()


def no_recurrent(net: nn.Module) -> None:
    """Refuse a network with layers that a tool for convolutions and linear layers would leave as they are."""
    other = [name for name, each in net.named_modules() if isinstance(each, nn.GRU | nn.LSTM)]
    if other:
        raise Unable(f"it rounds convolutions and linear layers and would leave {other[0]}")


def only_linear(net: nn.Module) -> None:
    """Refuse a network with layers that a tool for linear layers would leave as they are."""
    other = [name for name, each in net.named_modules() if isinstance(each, nn.Conv2d | nn.GRU | nn.LSTM)]
    if other:
        raise Unable(f"it rounds linear layers alone and would leave {other[0]}")
