"""The two networks of LeCun et al. 1998 as the pruning papers have them, and a convolutional teacher for both.

All take images ``(batch, 1, 28, 28)`` and return logits ``(batch, 10)``; no Attar in here.
"""

from __future__ import annotations

from torch import nn


def lenet_300_100() -> nn.Sequential:
    """Return LeNet-300-100: two hidden layers, 266,610 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def lenet5() -> nn.Sequential:
    """Return LeNet-5 in the form of Caffe's example, which Han et al. 2016 compress: 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


def teacher(width: int = 32, dropout: float = 0.3) -> nn.Sequential:
    """Return a convolutional network with batch-norms that teaches both: about 470,000 parameters."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, width, 1), (width, width, 2), (width, 2 * width, 1), (2 * width, 2 * width, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    head = [nn.Flatten(), nn.Dropout(dropout), nn.Linear(98 * width, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*layers, *head)
