"""A small convolutional network for 8x8 digits, in plain PyTorch: no Attar in here."""

from torch import Tensor, nn
from torch.nn import functional as F


class DigitNet(nn.Module):
    """Four convolutions with batch-norm; input (N, 1, 8, 8) in 0..1, output (N, 10) logits.

    Of width 64 it has 264,522 parameters, of width 32 67,754, of width 16 17,754.
    """

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
