"""Scalars stay scalars: parameters, buffers, constants and outputs of shape ``()``."""

import pytest
import torch
from torch import nn

import attar

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


class Temperature(nn.Module):
    """A learned temperature, as CLIP's logit_scale."""

    def __init__(self):
        super().__init__()
        self.c, self.t = nn.Linear(8, 4), nn.Parameter(torch.tensor(1.3))
        self.register_buffer("k", torch.tensor(3))

    def forward(self, x):
        return self.c(x) * self.t.exp() + self.k


def _assigned(assign):
    class Assign(Temperature):
        def forward(self, x):
            y = self.c(x) * self.t
            assign(y)
            return y

    return Assign


def _column(y):
    y[:, 0] = 0


def _slice(y):
    y[:, 1:3] = 0.5


def _last(y):
    y[..., -1] = y.mean(1)


def _indices(y):
    y[:, torch.tensor([0, 2])] = 1.0


def _mask(y):
    y[y < 0] = 0.25


def _columns(y):
    y[:, y[0] < 0] = 0.25


def _columns_of_pairs(y):
    y.view(-1, 2, 4)[:, :, y[0] > 0] = 0.5


def _in_place(y):
    y[:, 1:3].mul_(2).add_(1)
    y.masked_fill_(y > 1, 1.0)


class Stacked(Temperature):
    def forward(self, x):
        return self.c(x) * torch.stack([self.t, 2 * self.t, self.t, self.t])


class Filled(Temperature):
    def forward(self, x):
        wide = torch.zeros(x.shape[0], 12)
        wide[:, 4:8] = self.c(x)
        return wide * self.t


class Scattered(Temperature):
    def forward(self, x):
        y = self.c(x)
        return y.select_scatter(y.sum(1), 1, 0).slice_scatter(y[:, :2], 1, 2, 4) + self.t


class Given(Temperature):
    def forward(self, x):
        y = self.c(x)
        return y, self.t.exp(), y.mean(), self.t, torch.tensor(3.0)


ASSIGNED = [
    _assigned(each) for each in (_column, _slice, _last, _indices, _mask, _columns, _columns_of_pairs, _in_place)
]


@pytest.mark.parametrize("made", [Temperature, *ASSIGNED, Stacked, Filled, Scattered, Given])
def test_a_module_with_scalars_is_deployed(made, tmp_path):
    torch.manual_seed(0)
    net = made().eval()
    attar.quantize(net, X, bits=8).save(tmp_path / "m.attar")
    found = attar.Session(tmp_path / "m.attar").run({"x": X.numpy()})
    with torch.no_grad():
        wanted = net(X)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for array, tensor in zip(found.values(), wanted, strict=True):
        assert array.shape == tuple(tensor.shape)
        torch.testing.assert_close(torch.from_numpy(array), tensor, atol=0.05, rtol=0.05)


def test_scalars_are_stored_and_loaded_as_scalars(tmp_path):
    torch.manual_seed(0)
    net = Temperature()
    quantized = attar.quantize(net, X, bits=8)
    quantized.save(tmp_path / "m.attar")
    stored = attar.open_artifact(tmp_path / "m.attar")
    assert stored.tensor("t").dense().shape == ()
    loaded = attar.load(tmp_path / "m.attar", into=Temperature())
    torch.testing.assert_close(loaded(X), quantized.module(X))
    assert loaded.t.shape == ()
