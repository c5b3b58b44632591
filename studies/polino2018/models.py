"""The CIFAR-10 networks of Polino, Pascanu and Alistarh 2018 (appendix A.1), without the ReLU they had on the logits.

Every hidden layer is a convolution or linear layer with bias, ReLU, then batch-norm; convolutions keep the size; 2x2
max-pooling follows the second and the fourth convolution (in the teacher the eighth too). Images are
``(batch, 3, 32, 32)``, logits ``(batch, 10)``; no Attar in here.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def network(
    channels: Sequence[int], features: Sequence[int], kernel: int, pooled: Sequence[int], dropout: float
) -> nn.Sequential:
    """Return a network; ``pooled`` are the convolutions, counted from 1, behind which it pools."""
    layers: list[nn.Module] = []
    width, size = 3, 32
    for number, made in enumerate(channels, 1):
        layers += [nn.Conv2d(width, made, kernel, padding=kernel // 2), nn.ReLU(), nn.BatchNorm2d(made)]
        width = made
        if number in pooled:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    layers.append(nn.Flatten())
    width *= size * size
    for made in features:
        layers += [nn.Linear(width, made), nn.ReLU(), nn.BatchNorm1d(made)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = made
    return nn.Sequential(*layers, nn.Linear(width, 10))


def large(dropout: float = 0.0) -> nn.Sequential:
    """Return the paper's own teacher: 5,350,000 parameters."""
    return network((76, 76, 126, 126, 148, 148, 148, 148), (1200, 1200), 3, (2, 4, 8), dropout)


def s1(dropout: float = 0.0) -> nn.Sequential:
    """Return student 1: 1,000,000 parameters."""
    return network((75, 50, 50, 25), (500,), 5, (2, 4), dropout)


def s2(dropout: float = 0.0) -> nn.Sequential:
    """Return student 2: 318,000 parameters."""
    return network((50, 25, 25, 10), (400,), 5, (2, 4), dropout)


def s3(dropout: float = 0.0) -> nn.Sequential:
    """Return student 3: 112,000 parameters."""
    return network((25, 10, 10, 5), (300,), 5, (2, 4), dropout)
