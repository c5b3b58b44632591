"""Output channels that two axes number: each has a scale of its own, however the product is spelled."""

import numpy as np
import pytest
import torch
from torch import nn

import attar
from attar._src.core.scheme import PerBlock, PerChannel


def sqnr(want, got):
    """Signal to noise in decibels."""
    want, got = want.detach().numpy().astype(np.float64), np.asarray(got, np.float64)
    return 10 * np.log10((want**2).mean() / ((want - got) ** 2).mean())


def quantized(net, x, path, **options):
    """Return the compressed tensors, the report and the outputs of the file."""
    result = attar.quantize(net.eval(), x, **options)
    report = result.save(path)
    return result.compressed.tensors, report, attar.Session(path).run(x.numpy())


class Up(nn.Module):
    """A transposed convolution whose groups differ in size by 1000, which the layer behind it undoes."""

    def __init__(self, groups, channels=16, out=16, make=nn.ConvTranspose2d):
        super().__init__()
        self.t, self.o = make(channels, out, 4, 2, 1, groups=groups), nn.Conv2d(out, 3, 1)
        if make is nn.ConvTranspose1d:
            self.o = nn.Conv1d(out, 3, 1)
        spread = [-1] + [1] * (self.t.weight.dim() - 1)
        with torch.no_grad():
            size = torch.logspace(-2, 1, groups)
            self.t.weight.mul_(size.repeat_interleave(channels // groups).view(spread))
            self.t.bias.mul_(size.repeat_interleave(out // groups))
            self.o.weight.div_(size.repeat_interleave(out // groups).view(1, -1, *spread[2:]))

    def forward(self, x):
        return self.o(self.t(x))


@pytest.mark.parametrize(
    ("groups", "channels", "out", "granularity"),
    [
        (1, 16, 16, PerChannel(axis=1)),
        (4, 16, 16, PerBlock(sizes=(4, 1, 4, 4))),
        (16, 16, 16, PerChannel(axis=0)),
        (4, 8, 16, PerBlock(sizes=(2, 1, 4, 4))),
        (8, 8, 16, PerBlock(sizes=(1, 1, 4, 4))),
    ],
    ids=["one group", "groups", "depthwise", "more outputs than inputs", "depthwise with a multiplier"],
)
def test_groups_of_a_transposed_convolution(tmp_path, groups, channels, out, granularity):
    torch.manual_seed(0)
    net, x = Up(groups, channels, out), torch.randn(16, channels, 6, 6)
    tensors, _, got = quantized(net, x, tmp_path / "m.attar", bits=8, keep=("o",))
    assert tensors["t.weight"].scheme.granularity == granularity
    assert tensors["t.weight"].scale.size == out
    assert sqnr(net(x), got) > 45


def test_groups_of_a_transposed_convolution_over_time(tmp_path):
    torch.manual_seed(0)
    net, x = Up(4, make=nn.ConvTranspose1d), torch.randn(16, 16, 12)
    tensors, _, got = quantized(net, x, tmp_path / "m.attar", bits=8, keep=("o",))
    assert tensors["t.weight"].scale.size == 16
    assert sqnr(net(x), got) > 45


class Experts(nn.Module):
    def __init__(self, experts=4):
        super().__init__()
        size = torch.logspace(-1, 1, experts).view(-1, 1, 1)
        self.router = nn.Linear(8, experts)
        self.first = nn.Parameter(torch.randn(experts, 8, 16) * size)
        self.second = nn.Parameter(torch.randn(experts, 16, 8) / size * 0.1)

    def forward(self, x):
        share = self.router(x).softmax(-1)
        return (torch.relu(x.unsqueeze(0) @ self.first) @ self.second * share.t().unsqueeze(-1)).sum(0)


class Selected(Experts):
    def forward(self, x):
        share = self.router(x).softmax(-1)
        each = [torch.relu(x @ self.first[i]) @ self.second[i] for i in range(4)]
        return sum(share[:, i : i + 1] * y for i, y in enumerate(each))


class Einsum(Experts):
    def forward(self, x):
        hidden = torch.relu(torch.einsum("bi,eio->beo", x, self.first))
        return torch.einsum("beo,eoi,be->bi", hidden, self.second, self.router(x).softmax(-1))


class Unbound(Experts):
    def forward(self, x):
        share = self.router(x).softmax(-1).unbind(1)
        pairs = zip(share, self.first.unbind(0), self.second.unbind(0), strict=True)
        return sum(part.unsqueeze(1) * (torch.relu(x @ one) @ two) for part, one, two in pairs)


@pytest.mark.parametrize("make", [Experts, Selected, Einsum, Unbound])
def test_stacked_experts(tmp_path, make):
    torch.manual_seed(0)
    net, x = make(), torch.randn(64, 8)
    tensors, report, got = quantized(net, x, tmp_path / "m.attar", bits=4)
    assert tensors["first"].scheme.granularity == PerBlock(sizes=(1, 8, 1))
    assert tensors["second"].scheme.granularity == PerBlock(sizes=(1, 16, 1))
    assert report["left_in_floating_point"] == {}
    assert sqnr(net(x), got) > 17
