"""ResNets for CIFAR (He et al. 2016, "Deep residual learning for image recognition", section 4.2), shortcuts of type A.

A 3x3 convolution to 16 channels, three stages of ``n`` blocks with 16, 32 and 64 channels and strides 1, 2, 2, the mean
over the image, a linear layer: ``6n + 2`` layers. Inputs are ``(batch, 3, 32, 32)``.

    attar quantize examples/resnet.py:resnet20 --weights resnet20.safetensors --data cifar10 --bits 8 -o resnet20.attar
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions with batch-norm, and a shortcut without parameters around them."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.changes_shape = stride != 1 or inputs != planes
        self.padding = planes // 4

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(shortcut(x) + f(x))``; a changing shape takes every second pixel and zeros as new channels."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.changes_shape:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(out + x)


class ResNet(nn.Module):
    """The network with ``blocks`` blocks a stage, from ``(batch, 3, h, w)`` to ``(batch, num_classes)``.

    ``width`` multiplies the channels (Zagoruyko and Komodakis 2016, "Wide residual networks").
    """

    def __init__(self, blocks: int, num_classes: int = 10, width: int = 1) -> None:
        super().__init__()
        first, second, third = 16 * width, 32 * width, 64 * width
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, blocks, stride=1)
        self.layer2 = _stage(first, second, blocks, stride=2)
        self.layer3 = _stage(second, third, blocks, stride=2)
        self.linear = nn.Linear(third, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x``."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.linear(x)  # type: ignore[no-any-return]


def _stage(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(inputs, planes, stride)
    return nn.Sequential(first, *(Block(planes, planes, 1) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10, width: int = 1) -> ResNet:
    """Return an untrained ResNet-20: 269,722 parameters for ten classes and a width of 1."""
    return ResNet(3, num_classes, width)


def resnet56(num_classes: int = 10) -> ResNet:
    """Return an untrained ResNet-56: 853,018 parameters for ten classes."""
    return ResNet(9, num_classes)
