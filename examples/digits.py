"""A small convolutional network for 8x8 digits, trained in plain PyTorch: no Attar in here."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DigitNet(nn.Module):
    """Four convolutions with batch-norm, about 68,000 parameters; input (N, 1, 8, 8) in 0..1, output (N, 10) logits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [(1, width), (width, width), (width, 2 * width), (2 * width, 2 * width)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in sizes)
        self.head = nn.Linear(2 * width * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            if i % 2:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def train(x: np.ndarray, y: np.ndarray, epochs: int = 15, batch: int = 64, seed: int = 0) -> DigitNet:
    """Train on images (N, 1, 8, 8) in 0..1 and labels (N,); the same seed gives the same network."""
    torch.manual_seed(seed)
    net, images, labels = DigitNet(), torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch)[: len(images) // batch]:
            loss = F.cross_entropy(net(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()
