"""Channels of single groups: ``overrides`` of ``attar.prune`` and of the stage ``prune_channels``."""

import pytest
import torch
from torch import nn

import attar
from attar._src.core.errors import SpecError, UnknownName


class Residual(nn.Module):
    """Two convolutions that are added, one before them and an LSTM behind."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.lstm, self.head = nn.LSTM(16, 12, num_layers=2, batch_first=True), nn.Linear(12, 4)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.outer(self.inner(x).relu())
        return self.head(self.lstm(x.flatten(2).transpose(1, 2))[0][:, -1])


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Residual().eval()


X = torch.randn(8, 3, 8, 8)


def widths(module):
    return module.stem.out_channels, module.inner.out_channels, module.lstm.hidden_size


@pytest.mark.parametrize(
    ("channels", "overrides", "expected"),
    [
        (None, {"inner": 0.5}, (16, 4, 12)),
        (None, {"*": 0.25, "stem": 0.5}, (8, 6, 9)),
        # The last that matches counts, and either layer of a group names it.
        (None, {"stem": 0.5, "outer.weight": 0.25}, (12, 8, 12)),
        (0.5, {"inner": 0.0}, (8, 8, 6)),
        (None, {"inner": 0.0}, (16, 8, 12)),
    ],
)
def test_each_group_loses_a_share_of_its_own(net, channels, overrides, expected):
    result = attar.prune(net, X, channels=channels, overrides=overrides)
    assert widths(result.module) == expected
    x = torch.randn(3, 3, 8, 8)
    assert result.module(x).shape == (3, 4)
    if overrides == {"inner": 0.0} and channels is None:
        torch.testing.assert_close(result.module(x), net(x))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"overrides": {"iner": 0.5}}, UnknownName, "no layer named 'iner'; did you mean 'inner'"),
        ({"overrides": {"head": 0.5}}, SpecError, "overrides 'head': no channels of it can be removed: .*output"),
        ({"overrides": {"inner": 1.0}}, SpecError, "overrides.*inner"),
        ({"overrides": {"inner": 0.5}, "max_ms": 1.0}, SpecError, "max_ms= tells how much is removed; leave out over"),
        ({"overrides": {"inner": 0.5}, "macs": 0.5}, SpecError, "overrides are shares of"),
        ({"overrides": {"inner": 0.5}, "channels": 0.5, "scope": "global"}, SpecError, "overrides are shares of"),
    ],
)
def test_what_cannot_be_is_refused(net, options, error, message):
    with pytest.raises(error, match=message):
        attar.prune(net, X, **options)


def test_parameters_of_folded_norms_are_no_zeros(tmp_path):
    """Guards against zeros that nobody made, where the file has fewer tensors than the module."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    nn.init.ones_(net[1].bias)
    result = attar.prune(net.eval(), X, sparsity=0.5)
    zeros = sum(int((each == 0).sum()) for each in (result.module[0].weight, result.module[4].weight))
    whole = sum(each.numel() for each in net.parameters())
    assert result.save(tmp_path / "a.attar")["pruning"]["nonzero"] == [whole, whole - zeros]
    assert result.figures["nonzero"] == [whole, whole - zeros]
